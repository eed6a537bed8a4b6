"""The command `jacobian-lab results`: the tables and figures of RESULTS.md, from finished runs.

    <!-- eigenvalues-latent: jacobian-lab eigenvalues --model mnist-latent -->
    <!-- end -->

Between two such markers lies the answer of the run of that command; its figure is written beside
the document as figures/eigenvalues-latent.png, if the document shows it. `jacobian-lab claims` is
the table of all published claims, of the newest runs whatever their options. All else is by hand.
A run is found by its options, its weights and its code; tables and figures are drawn anew from its
data, so that a second call changes nothing.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from jacobian_lab import InputError, _require
from jacobian_lab._files import read_json, write_whole
from mnist.runs import Claim
from studies.archive.claims import claims_table, findings_in
from studies.cli import named, parsed
from studies.commands import study_of
from studies.frame.answer import markdown_table
from studies.frame.dataset import arrays_of, read_dataset
from studies.frame.provenance import OUTSIDE, claim_of
from studies.frame.study import Options, Study, figures, perform

DOCUMENT = Path(__file__).with_name("RESULTS.md")
OPENING = re.compile(r"<!-- ([\w-]+): jacobian-lab (.+?) -->\n")
CLOSING = "<!-- end -->"


@dataclass(frozen=True)
class Results:
    """Write the tables and figures of RESULTS.md. Example: jacobian-lab results --only eigenvectors
    --compute.

    They are those of finished runs, which are found by their options.
    """

    document: Path = DOCUMENT
    """The document with the markers; its figures lie in the folder figures beside it."""
    runs: Path = Path("runs")
    """Folder in which the runs lie."""
    only: tuple[str, ...] = ()
    """Which tables and figures, by their names in the document; by default all."""
    compute: bool = False
    """First run what is missing or was made by other code, which may take hours."""
    other_code: bool = False
    """Take the newest run of other code where this code has made none; options that it did not know
    count as their defaults.
    """

    def __post_init__(self) -> None:
        _require.options(self)
        if not self.document.is_file():
            raise InputError(f"--document {self.document} is no file: name one with markers")


class Section(NamedTuple):
    """What stands between two markers."""

    name: str
    command: str
    start: int
    end: int

    def study(self) -> tuple[Study[Any], Any]:
        """Return the study of the command and its options."""
        name, command, words = named(shlex.split(self.command))
        if command.function:
            raise InputError(f"{self.name}: jacobian-lab {name} makes no run: name a study")
        return study_of(command), parsed(command, name, words)


def write_results(config: Results) -> None:
    """Write tables and figures of all runs that are there; raise if one is missing or stale."""
    sections, refused = sections_of(config.document.read_text()), list[str]()
    unknown = set(config.only) - {section.name for section in sections}
    if unknown:
        raise InputError(
            f"--only {' '.join(sorted(unknown))}: {config.document} has no such marker"
        )
    tables: dict[str, str] = {}
    for section in sections:
        if config.only and section.name not in config.only:
            continue
        try:
            tables[section.name], said = _table_of(section, config)
        except InputError as error:
            refused.append(f"{section.name}: {error}")
            continue
        print(f"{section.name}: {said}")
    _fill(config.document, tables)
    if refused:
        raise InputError("; ".join([*refused, "run these commands, or add --compute"]))


def _table_of(section: Section, config: Results) -> tuple[str, str]:
    """Return the table of a section, and where it comes from; write its figure if the document
    shows it.
    """
    if section.command == "claims":
        found, _ = findings_in(config.runs)
        return markdown_table(claims_table(found)), ", ".join(found)
    study, options = section.study()
    folder = run_of(study, options, config)
    arrays = arrays_of(read_dataset(folder))
    place = Path("figures") / f"{section.name}.png"
    if f"({place.as_posix()})" in config.document.read_text():
        for image in figures(study, arrays, ("png",)).values():
            _write(config.document.parent / place, image)
    return markdown_table(study.answer(study.table(arrays))), str(folder)


def _fill(document: Path, tables: dict[str, str]) -> None:
    """Write tables between their markers, as the document is now: hours may have gone by."""
    text, parts, at = document.read_text(), list[str](), 0
    for section in sections_of(text):
        if section.name in tables:
            parts += [text[at : section.start], f"\n{tables[section.name]}\n\n"]
            at = section.end
    _write(document, "".join([*parts, text[at:]]).encode())


def sections_of(text: str) -> list[Section]:
    """Return what stands between markers, in order; raise if one has no end."""
    found = []
    for opening in OPENING.finditer(text):
        end, following = text.find(CLOSING, opening.end()), OPENING.search(text, opening.end())
        if end < 0 or (following and following.start() < end):
            raise InputError(f"the marker {opening[0].strip()} has no {CLOSING} after it")
        found.append(Section(opening[1], opening[2], opening.end(), end))
    names = [section.name for section in found]
    if len(set(names)) < len(names) or not names:
        raise InputError(f"expected one or more markers of different names: got {names}")
    return found


def run_of(study: Study[Any], options: Options, config: Results) -> Path:
    """Return the newest finished run of a study with these options, weights and code; raise if
    there is none, and it is not to be computed.
    """
    claim = claim_of(study, options)
    others = []
    # written last
    manifests = list(config.runs.glob(f"{study.name}-*/manifest.json"))
    for manifest in sorted(manifests, key=lambda path: path.stat().st_mtime, reverse=True):
        folder = manifest.parent
        found = read_json(folder / "config.json", "the claim of a run")
        if folder.suffix == ".partial":
            continue
        if found == claim:
            return folder
        if _in_todays_words(found, study, claim) == claim:
            others.append(folder)
    if others and config.other_code:
        return others[0]
    if config.compute:
        return perform(study, options, config.runs).folder
    if others:
        raise InputError(f"{others[0]} was made by other code, which --other-code accepts")
    raise InputError(f"no finished run in {config.runs}")


def _in_todays_words(found: Claim, study: Study[Any], claim: Claim) -> Claim:
    """Return the claim of a run of other code as today's code would state it: options that it did
    not know at their defaults, without those that are gone if it did not use them.
    """
    known = {field.name: field for field in fields(study.config) if field.name not in found}
    defaults: Claim = {
        name: field.default if field.default is not MISSING else {}  # of hashes, a factory
        for name, field in known.items()
        if name in claim
    }
    told = {
        key: value for key, value in found.items() if key in claim or (value and key not in OUTSIDE)
    }
    return dict(json.loads(json.dumps(defaults, default=str))) | told | {"code": claim["code"]}


def _write(path: Path, content: bytes) -> None:
    """Write a file unless it is so already."""
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, content)
