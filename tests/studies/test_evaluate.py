"""The scores of a denoiser."""

import pytest

from conftest import call


@pytest.mark.slow
def test_it_takes_the_times_of_a_flow(run, flow, monkeypatch, capsys):
    data, rows, _ = run(
        *("evaluate", "--times", "0.3", "--digits", "20", "--jacobians", "1"),
        *("--samples", "64", "--steps", "2"),
        "--model",
        flow,
    )
    assert rows
    assert data["time"].tolist() == [0.3]
    status, _, err = call(monkeypatch, capsys, "evaluate", "--model", flow, "--times", "300.5")
    assert status == 2
    assert "a rectified flow takes a time in (0, 1]" in err
