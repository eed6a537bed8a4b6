"""The tables and figures of a document, from runs."""

import re
import shlex
from dataclasses import replace

import pytest

from jacobian_lab import InputError
from jacobian_lab._files import json_bytes, read_json
from studies import results
from studies.cli import named, parsed
from studies.commands import COMMANDS, Command
from studies.frame.study import run
from studies.results import DOCUMENT, Results, sections_of, write_results

from conftest import call
from squares import Options, Squares

TEXT = """# By hand
<!-- three: jacobian-lab squares -->
an old table
<!-- end -->
![Drawn](figures/three.png)
<!-- two: jacobian-lab squares --count 2 -->
<!-- end -->
By hand, too.
"""
FIGURES = DOCUMENT.parent / "figures"
THREE = "\n| i | square |\n| --- | --- |\n| 0 | 0 |\n| 1 | 0.333 |\n| 2 | 1.33 |\n\n"
TWO = THREE.replace("| 2 | 1.33 |\n", "")


@pytest.fixture
def squares(monkeypatch):
    """The study of squares as a command."""
    made = Squares()
    monkeypatch.setattr("squares.STUDY", made.study(), raising=False)
    monkeypatch.setitem(COMMANDS, "Tests", {"squares": Command("squares", "Square.")})
    return made


@pytest.fixture
def config(tmp_path):
    (tmp_path / "RESULTS.md").write_text(TEXT)
    return Results(tmp_path / "RESULTS.md", tmp_path / "runs")


def finish(squares, config, **options):
    name = f"squares-{options.get('count', 3)}"
    return run(squares.study(), Options(out=config.runs / name, **options))


def test_tables_and_figures_come_from_runs_and_a_second_call_changes_nothing(squares, config):
    folders = [finish(squares, config), finish(squares, config, count=2)]
    before = {path: path.stat().st_mtime_ns for f in folders for path in f.iterdir()}
    write_results(config)
    document, figure = config.document, config.document.parent / "figures" / "three.png"
    expected = TEXT.replace("an old table\n", THREE).replace("2 -->\n", f"2 -->\n{TWO}")
    assert document.read_text() == expected
    assert figure.read_bytes() == (folders[0] / "figure.png").read_bytes()
    assert [path.name for path in figure.parent.iterdir()] == ["three.png"]  # what is shown
    written = [path.stat().st_mtime_ns for path in (document, figure)]
    write_results(config)
    assert [path.stat().st_mtime_ns for path in (document, figure)] == written
    assert {path: path.stat().st_mtime_ns for f in folders for path in f.iterdir()} == before


def test_what_is_missing_is_named_and_the_rest_is_written(squares, config):
    finish(squares, config)
    with pytest.raises(InputError, match=r"two: no finished run in .*runs; run these commands"):
        write_results(config)
    assert config.document.read_text() == TEXT.replace("an old table\n", THREE)


def test_what_is_missing_is_computed_if_asked(squares, config):
    write_results(Results(config.document, config.runs, compute=True))
    assert squares.computed == [0, 1, 2, 0, 1]
    assert TWO + "<!-- end -->" in config.document.read_text()
    write_results(config)
    assert squares.computed == [0, 1, 2, 0, 1]


def test_a_run_of_other_code_is_refused_unless_it_is_asked_for(squares, config, monkeypatch):
    folder = finish(squares, config)
    real = results.claim_of
    monkeypatch.setattr(results, "claim_of", lambda *a: real(*a) | {"code": {"sources": "other"}})
    with pytest.raises(InputError, match=rf"three: {folder} was made by other code"):
        write_results(Results(config.document, config.runs, ("three",)))
    assert config.document.read_text() == TEXT
    write_results(Results(config.document, config.runs, ("three",), other_code=True))
    assert THREE in config.document.read_text()


def test_options_that_a_run_of_other_code_did_not_know_count_as_their_defaults(squares, config):
    folder = finish(squares, config)
    claim = read_json(folder / "config.json", "a claim")
    known = {key: value for key, value in claim.items() if key != "power"}
    for found, accepted in (
        (known, True),
        (known | {"count": 4}, False),
        (claim | {"a": 1}, False),
    ):
        (folder / "config.json").write_bytes(json_bytes(found | {"code": {}}))
        asked = Results(config.document, config.runs, ("three",), other_code=True)
        if accepted:
            write_results(asked)
            continue
        with pytest.raises(InputError, match="three: no finished run"):
            write_results(asked)


def test_an_unfinished_run_is_none(squares, config):
    finish(squares, config).rename(config.runs / "squares-3.partial")
    with pytest.raises(InputError, match="three: no finished run"):
        write_results(Results(config.document, config.runs, ("three",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no marker", "expected one or more markers"),
        (TEXT.replace("two:", "three:"), "of different names"),
        (TEXT.replace("an old table\n<!-- end -->", ""), "three: jacobian-lab squares --> has no"),
        ("<!-- a: jacobian-lab train latent -->\n<!-- end -->", "a: .* makes no run"),
    ],
)
def test_slips_in_the_document_are_named(squares, config, text, message):
    config.document.write_text(text)
    with pytest.raises(InputError, match=message):
        write_results(config)
    assert config.document.read_text() == text


def test_an_unknown_name_and_a_missing_document_are_refused(monkeypatch, capsys, squares, config):
    words = ("results", "--document", config.document, "--runs", config.runs)
    assert call(monkeypatch, capsys, *words, "--only", "four")[::2] == (
        2,
        f"error: --only four: {config.document} has no such marker\n",
    )
    status, _, err = call(monkeypatch, capsys, "results", "--document", "nowhere.md")
    assert (status, "nowhere.md is no file" in err) == (2, True)


def test_the_markers_of_our_results_name_studies_with_options_of_today():
    sections = [s for s in sections_of(DOCUMENT.read_text()) if s.command != "claims"]
    claims = [(study.name, str(options)) for study, options in (s.study() for s in sections)]
    assert len(set(claims)) == len(claims) >= 15


def test_the_documents_other_commands_are_commands_of_today(capsys):
    text = " ".join(DOCUMENT.read_text().split())
    for words in re.findall(r"`jacobian-lab ([^`]+)`", text):
        name, command, options = named(shlex.split(words))
        assert parsed(command, name, options), words


def test_every_figure_that_is_shown_is_there_and_small():
    text = DOCUMENT.read_text()
    shown = set(re.findall(r"\((figures/[\w-]+\.png)\)", text))
    there = {f"figures/{path.name}" for path in FIGURES.glob("*.png")}
    assert shown == there
    big = [path.name for path in FIGURES.glob("*.png") if path.stat().st_size > 360e3]
    assert not big


def test_what_is_written_while_it_computes_stays(squares, config, monkeypatch):
    document, compute = config.document, Squares.piece

    def piece(self, i):
        document.write_text(f"Written meanwhile.\n{TEXT}")
        return compute(self, i)

    monkeypatch.setattr(Squares, "piece", piece)
    write_results(replace(config, compute=True))
    assert document.read_text() == "Written meanwhile.\n" + TEXT.replace(
        "an old table\n", THREE
    ).replace("2 -->\n", f"2 -->\n{TWO}")
