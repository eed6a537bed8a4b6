"""The table of published claims, from finished runs."""

import sys

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.archive.claims import GROUP, Claims, tell_claims
from studies.commands import COMMANDS, Command
from studies.frame.dataset import Variable
from studies.frame.findings import Finding, Standing
from studies.frame.study import Config, Study, perform
from studies.results import Results, write_results

FOUND = np.array([0.5, 0.4, 0.6])


def findings(arrays):
    passed = bool(arrays["oracle"] < 1e-6)
    value = tuple(arrays["found"].tolist())
    return [
        Finding("It is large", "Somebody 2026", "known to 1e-6", passed, "size", value,
                Standing.FAILS)
    ]  # fmt: skip


def made(oracle):
    return Study(
        "large",
        Config,
        lambda _config, _pieces: {"found": FOUND, "oracle": np.array(oracle)},
        lambda arrays: [{"size": float(arrays["found"][0])}],
        None,
        models=lambda _config: {},
        variables={"found": Variable("end", "size, low, high"), "oracle": Variable("", "error")},
        findings=findings,
    )


@pytest.fixture
def large(monkeypatch):
    """Two studies of claims: one with a run, one without."""
    module = sys.modules[__name__]
    monkeypatch.setattr(module, "STUDY", made(1e-9), raising=False)
    monkeypatch.setattr(
        module, "OTHER", Study(**{**vars(made(0.0)), "name": "other"}), raising=False
    )
    group = {
        "large": Command(__name__, "Measure.", study="STUDY"),
        "other": Command(__name__, "Measure.", study="OTHER"),
        "claims": COMMANDS[GROUP]["claims"],
    }
    monkeypatch.setitem(COMMANDS, GROUP, group)
    return module


def test_findings_of_runs_are_one_table_and_what_is_missing_is_named(
    large, tmp_path, capsys, monkeypatch
):
    outcome = perform(large.STUDY, Config(), tmp_path)
    assert "It is large (Somebody 2026)" in outcome.answer
    assert "0.5 [0.4, 0.6]" in outcome.answer
    assert (outcome.folder / "findings.csv").read_text().startswith("claim,source,oracle,")
    assert tell_claims(Claims(tmp_path, tmp_path / "claims.md"))
    out, err = capsys.readouterr()
    assert "here    does not hold" in out
    assert f"other: no finished run in {tmp_path}: jacobian-lab other" in err
    table = (tmp_path / "claims.md").read_text().splitlines()
    assert len(table) == 3
    assert "| large | It is large | Somebody 2026 | passed: known to 1e-6 |" in table[2]
    monkeypatch.setattr(large, "STUDY", made(1.0))
    perform(large.STUDY, Config(seed=1), tmp_path)
    assert not tell_claims(Claims(tmp_path))
    assert "failed where the answer is known: large: known to 1e-6" in capsys.readouterr().err


def test_results_have_the_table_of_the_newest_runs(large, tmp_path):
    perform(large.STUDY, Config(), tmp_path)
    document = tmp_path / "RESULTS.md"
    document.write_text("<!-- claims: jacobian-lab claims -->\n<!-- end -->\n")
    write_results(Results(document, tmp_path))
    written = document.read_text()
    assert "| large | It is large | Somebody 2026 | passed: known to 1e-6 | size | 0.5" in written
    write_results(Results(document, tmp_path))
    assert document.read_text() == written


def test_without_runs_and_with_a_wrong_ending_it_is_refused(large, tmp_path):
    with pytest.raises(InputError, match="large, other are the studies"):
        tell_claims(Claims(tmp_path))
    with pytest.raises(InputError, match=r"--to must end in \.md"):
        Claims(tmp_path, tmp_path / "claims.html")
