"""The documentation site: `sphinx-build -W studies/site OUT`, after pip install -e ".[docs]".

Reference, commands and results are made of the code. The gallery's runs and the notebooks are
computed while the site is built, in about a minute.
"""

import dataclasses
import inspect
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))

import jacobian_lab  # noqa: E402
from studies.commands import COMMANDS, options_of  # noqa: E402
from studies.site.gallery_page import gallery  # noqa: E402
from studies.site.notebook_page import page_of_notebook  # noqa: E402

project, author = "jacobian-lab", "the authors of jacobian-lab"
release = version = jacobian_lab.__version__
extensions = ["myst_parser", "numpydoc", "sphinx.ext.autodoc", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
default_role = "literal"  # `x_t` in docstrings is code
html_theme = "furo"
html_title = f"jacobian-lab {release}"
html_static_path = ["_figures"]
html_extra_path = ["_extra"]
exclude_patterns = ["_figures", "_runs"]
numpydoc_show_class_members = False
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings' Parameters have shapes and ranges
suppress_warnings = ["myst.xref_missing"]  # links of RESULTS.md into the repository

STATIONS = {
    "diffusion": "Models",
    "linops": "The Jacobian",
    "derivative": "Products inside a loss",
    "krylov": "Spectra, estimates, solvers",
    "constraints": "Constraints",
    "sampling": "Newton steps and sampling",
    "errors": "Errors and warnings",
}


def reference() -> str:
    """Return the reference, in reStructuredText: the front door's names by their stations."""
    by_station: dict[str, list[str]] = {station: [] for station in STATIONS}
    for name in jacobian_lab.__all__:
        made = getattr(jacobian_lab, name)
        if inspect.isclass(made) or inspect.isfunction(made):
            by_station[made.__module__.split(".")[1]].append(name)
    text = ["Reference", "=========", "", "All names are imported from ``jacobian_lab``.", ""]
    for station, title in STATIONS.items():
        text += [title, "-" * len(title), ""]
        for name in by_station[station]:
            kind = "class" if inspect.isclass(getattr(jacobian_lab, name)) else "function"
            text += [f".. auto{kind}:: jacobian_lab.{name}"]
            text += ["   :members:"] if kind == "class" else []
            text += [""]
    title = "Masks"
    text += [title, "-" * len(title), "", ".. automodule:: jacobian_lab.constraints.masks"]
    return "\n".join([*text, "   :members:", ""])


def commands() -> str:
    """Return the page of the commands: what each asks, its options, and its figure."""
    text = ["# Commands", ""]
    for group, entries in COMMANDS.items():
        text += [f"## {group}", ""]
        for name, command in entries.items():
            kind = options_of(command)
            about, _, example = " ".join((inspect.getdoc(kind) or "").split()).partition(
                "Example: "
            )
            example, _, more = example.partition(". ")
            text += [f"### {name}", "", f"{about}{more}", ""]
            text += ["```bash", example.rstrip("."), "```", ""]
            figure = f"{name.split()[-1]}.png"
            if (ROOT / "studies" / "figures" / figure).is_file():
                text += [f"![{name}](_figures/{figure})", ""]
            fields = [field for field in dataclasses.fields(kind) if field.init]
            options = " ".join(f"`--{field.name.replace('_', '-')}`" for field in fields)
            text += [f"Options: {options}", ""]
    return "\n".join(text)


def results() -> str:
    """Return the findings, with their figures where the site has them."""
    text = (ROOT / "studies" / "RESULTS.md").read_text()
    return text.replace("](figures/", "](_figures/")


def reports() -> str:
    """Return the gallery, and write its reports where Sphinx copies them from."""
    return gallery(HERE / "_runs", REPORTS, REPORTS.name)


def notebook(path: Path) -> str:
    """Return the page of a notebook."""
    return page_of_notebook(path, HERE / "_figures" / "notebooks", "../_figures/notebooks")


REPORTS = HERE / "_extra" / "reports"
NOTEBOOKS = sorted((ROOT / "studies" / "notebooks").glob("*.ipynb"))
GENERATED: dict[str, Callable[[], str]] = {
    "reference": reference,
    "commands": commands,
    "results": results,
    "gallery": reports,
    **{f"notebooks/{path.stem}": partial(notebook, path) for path in NOTEBOOKS},
}


def setup(app: Any) -> None:
    """Let Sphinx fill in the pages that are made of the code."""
    torch.set_num_threads(1)  # small models: two threads wait for each other on a busy machine
    shutil.copytree(ROOT / "studies" / "figures", HERE / "_figures", dirs_exist_ok=True)
    REPORTS.mkdir(parents=True, exist_ok=True)
    (HERE / "notebooks").mkdir(exist_ok=True)
    for path in NOTEBOOKS:
        (HERE / "notebooks" / f"{path.stem}.md").write_text(f"# {path.stem}\n")

    def fill(app: Any, page: str, source: list[str]) -> None:
        if page in GENERATED:
            source[0] = GENERATED[page]()

    def bars(app: Any, what: str, name: str, made: Any, options: Any, lines: list[str]) -> None:
        """Keep |A v| and *shape as they are: to docutils they are marks."""
        for i, line in enumerate(lines):
            parts = line.split("`")
            parts[::2] = [p.replace("|", r"\|").replace("*shape", r"\*shape") for p in parts[::2]]
            lines[i] = "`".join(parts)

    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", bars, priority=900)  # after numpydoc
