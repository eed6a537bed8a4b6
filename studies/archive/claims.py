"""The command `jacobian-lab claims`: what finished runs find of published claims, in one table."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from jacobian_lab import InputError, _require
from jacobian_lab._files import write_whole
from studies.archive.stored import Stored, runs_in
from studies.commands import COMMANDS, study_of
from studies.frame.answer import Row, markdown_table
from studies.frame.findings import Finding, findings_in_words

GROUP = "Published claims"
"""The group of commands whose studies have findings."""


@dataclass(frozen=True)
class Claims:
    """Tell which published claims hold here, from finished runs. Example: jacobian-lab claims --to
    claims.md.

    Of each study the newest run is taken. Exit status 1 if an assertion on an oracle failed.
    """

    runs: Path = Path("runs")
    """Folder in which the runs lie."""
    to: Path | None = None
    """A file for the table, in Markdown."""

    def __post_init__(self) -> None:
        _require.options(self)
        if self.to is not None and self.to.suffix != ".md":
            raise InputError(f"--to must end in .md: got {self.to}")


def tell_claims(config: Claims) -> bool:
    """Print what the newest run of each study finds; return whether all assertions passed."""
    found, missing = findings_in(config.runs)
    for name in missing:
        print(f"{name}: no finished run in {config.runs}: jacobian-lab {name}", file=sys.stderr)
    failed = []
    for name, findings in found.items():
        print(f"{name}\n{findings_in_words(findings)}\n")
        failed += [f"{name}: {finding.oracle}" for finding in findings if not finding.passed]
    if config.to is not None:
        write_whole(config.to, f"{markdown_table(claims_table(found))}\n".encode())
        print(f"{config.to}: the table")
    for line in failed:
        print(f"failed where the answer is known: {line}", file=sys.stderr)
    return not failed


def findings_in(runs: Path) -> tuple[dict[str, list[Finding]], list[str]]:
    """Return the findings of the newest finished run of each study of claims, by its name, and the
    studies without one; raise if there is none at all.
    """
    newest = {run.study_name: run for run in runs_in(runs) if run.state == "finished"}
    studies = {
        name: study_of(command).name
        for name, command in COMMANDS[GROUP].items()
        if not command.function
    }
    found = {name: findings_of(newest[of]) for name, of in studies.items() if of in newest}
    if not found:
        raise InputError(
            f"no run of a published claim lies in {runs}: {', '.join(studies)} are the studies"
        )
    return found, [name for name in studies if name not in found]


def claims_table(found: dict[str, list[Finding]]) -> list[Row]:
    """Return a row for each finding of each study."""
    return [{"study": name, **f.row()} for name, findings in found.items() for f in findings]


def findings_of(run: Stored) -> list[Finding]:
    """Return the findings of a finished run, from its data."""
    with run.told_if_other_code():
        assert run.study.findings is not None
        return run.study.findings(run.arrays())
