"""The command `jacobian-lab report`: finished runs on one page of HTML, for readers without this
package and without a network.

What the page says of a run is in `chapters`; how it looks is in report.html.jinja, report.css and
report.js. Text that comes from a run is escaped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from jacobian_lab import InputError, __version__, _require
from jacobian_lab._files import write_whole
from studies.archive.chapters import Chapter, Table, chapter_of, said
from studies.archive.siblings import are_siblings, options_apart, options_that_vary, sweeps
from studies.archive.stored import Stored, finished

HERE = Path(__file__).parent
CODE, FLAG = re.compile(r"`([^`]+)`"), re.compile(r"--[a-z][a-z-]*")


@dataclass(frozen=True)
class HtmlReport:
    """Report runs on one page for the browser. Example: jacobian-lab report
    runs/eigenvalues-1a2b3c4d runs/symmetry-5e6f7a8b --to report.html.

    The page is one file that needs no network.
    """

    POSITIONAL = ("runs",)

    runs: tuple[Path, ...]
    """Folders of finished runs."""
    to: Path = Path("report.html")
    """The file that is written."""

    def __post_init__(self) -> None:
        _require.options(self)
        if not self.runs:
            raise InputError("name one or more folders of runs; jacobian-lab list shows them")
        if self.to.suffix not in (".html", ".htm"):
            raise InputError(f"--to must end in .html: got {self.to}")


def write_report(config: HtmlReport) -> None:
    """Write the page; print where it is, and how large."""
    content = page_of(finished(config.runs)).encode(errors="replace")
    write_whole(config.to, content)
    print(f"{config.to}: {_counted(len(config.runs))}, {len(content) / 1e6:.2g} MB")


def page_of(runs: list[Stored]) -> str:
    """Return the page of some runs; raise `InputError` as `chapter_of` does."""
    chapters = [chapter_of(run, f"run-{k}") for k, run in enumerate(runs, 1)]
    environment = Environment(
        loader=FileSystemLoader(HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["prose"] = _prose
    environment.tests["numeric"] = _is_number
    return environment.get_template("report.html.jinja").render(
        title=f"jacobian-lab {chapters[0].command}" if len(runs) == 1 else _counted(len(runs)),
        chapters=chapters,
        sweeps=[_sweep([chapters[k] for k in group]) for group in sweeps(runs)],
        near=[_near(chapter, chapters) for chapter in chapters],
        version=__version__,
        citation=(HERE / "citation.bib").read_text(),
    )


def _sweep(chapters: list[Chapter]) -> dict[str, Any]:
    """Return what a table of runs of one sweep says: the options that vary among them."""
    names = options_that_vary([chapter.run for chapter in chapters])
    cells = [[said(chapter.run.options().get(name)) for name in names] for chapter in chapters]
    return {
        "command": chapters[0].command,
        "chapters": chapters,
        "table": Table([f"--{name.replace('_', '-')}" for name in names], cells),
    }


def _near(chapter: Chapter, chapters: list[Chapter]) -> list[tuple[Chapter, str]]:
    """Return the siblings of a run in the page, each with the options in which they differ."""
    return [
        (other, ", ".join(f"--{name.replace('_', '-')}" for name in apart))
        for other in chapters
        if are_siblings(chapter.run, other.run)
        for apart in [options_apart(chapter.run, other.run)]
    ]


def _prose(text: str) -> Markup:
    """Return a text, escaped: `code` is marked, options stay in one line, and long names may break
    after an underscore.
    """
    found = CODE.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(FLAG.sub(r'<span class="flag">\g<0></span>', found).replace("_", "_<wbr>"))


def _is_number(text: str) -> bool:
    """Return whether a cell holds a number, or one with its interval."""
    try:
        float(text.split(" [")[0])
    except ValueError:
        return False
    return True


def _counted(count: int) -> str:
    return f"{count} run{'s' * (count != 1)} of jacobian-lab"
