"""The gallery: reports of a few studies, run with small options while the site is built."""

from __future__ import annotations

import logging
import shlex
import shutil
from html import escape
from pathlib import Path
from unittest.mock import patch

from studies.archive.report import page_of
from studies.archive.stored import Stored
from studies.cli import named, parsed
from studies.commands import study_of
from studies.frame.study import perform

LINES = (
    "directions --digits 1 --times 500 --rconds 0.5",
    "eigenvalues --model mnist-latent --digits 1 --seeds 1 --times 300 700",
    "spectrum --model mnist-latent --arnoldi-steps 30",
    "inpaint --digits 3 --samples 2 --steps 8 --newton-steps 3",
)
"""Commands: those that answer in seconds on two cores."""
HEAD = """# Gallery

Each picture opens the report of a run, as `jacobian-lab report` writes it: one file that needs no
network, with the answer, the figure, the whole table, the options, and the command that repeats it.
These runs were made while this site was built, with few digits, seeds and noise levels, so that
they take seconds; [Results](results.md) has the numbers at the defaults.
"""
STYLE = """<style>
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); }
.gallery a { border: 1px solid var(--color-background-border); border-radius: 6px; color: inherit; }
.gallery a { overflow: hidden; text-decoration: none; }
.gallery img { aspect-ratio: 4 / 3; background: #fff; display: block; object-fit: contain; }
.gallery img { padding: 0.5rem; width: 100%; }
.gallery span { display: block; padding: 0.5rem 0.75rem; }
</style>"""
# what it says of each font of a figure, Sphinx would show
logging.getLogger("fontTools").setLevel(logging.WARNING)


def gallery(runs: Path, reports: Path, link: str) -> str:
    """Return the page, in Markdown; its reports and their pictures are written into a folder.

    Parameters
    ----------
    runs : Path
        The folder of the runs; finished ones of the same code are taken as they are.
    reports : Path
        Where the reports go.
    link : str
        That folder, as the page refers to it.
    """
    cards = [_card(line, runs, reports, link) for line in LINES]
    return "\n".join([HEAD, STYLE, '<div class="gallery">', *cards, "</div>", ""])


def _card(line: str, runs: Path, reports: Path, link: str) -> str:
    words = shlex.split(line)
    name, command, options = named(words)
    with patch("sys.argv", ["jacobian-lab", *words]):  # which the manifest keeps
        folder = perform(study_of(command), parsed(command, name, options), runs).folder
    (reports / f"{name}.html").write_text(page_of([Stored(folder)]))
    shutil.copy(folder / "figure.png", reports / f"{name}.png")
    return (
        f'<a href="{link}/{name}.html"><img src="{link}/{name}.png" alt="">'
        f"<span><strong>{name}</strong><br>{escape(command.does)}</span></a>"
    )
