"""A notebook as a page: its cells, executed in one process, with what they print and draw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import matplotlib.pyplot as plt


def page_of_notebook(notebook: Path, figures: Path, link: str) -> str:
    """Return a notebook in Markdown, with the outputs of its cells.

    Parameters
    ----------
    notebook : Path
        Its outputs are not looked at.
    figures : Path
        The folder into which figures are written, as NOTEBOOK-1.png.
    link : str
        That folder, as the page refers to it.

    Raises
    ------
    Exception
        What a cell raises.
    """
    figures.mkdir(parents=True, exist_ok=True)
    names: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    drawn = 0
    for kind, source in cells(notebook):
        if kind == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        printed = StringIO()
        with plt.rc_context({"backend": "agg"}), patch("matplotlib.pyplot.show"):
            with redirect_stdout(printed):
                exec(compile(source, notebook.name, "exec"), names)
            for number in plt.get_fignums():
                drawn += 1
                name = f"{notebook.stem}-{drawn}.png"
                plt.figure(number).savefig(figures / name, dpi=110, bbox_inches="tight")
                parts.append(f"![what the cell draws]({link}/{name})")
            plt.close("all")
        if printed.getvalue():
            parts.append(f"```text\n{printed.getvalue().rstrip()}\n```")
    return "\n\n".join([*parts, ""])


def cells(notebook: Path) -> Iterator[tuple[str, str]]:
    """Yield kind and source of each cell."""
    for cell in json.loads(notebook.read_text())["cells"]:
        yield cell["cell_type"], "".join(cell["source"])
