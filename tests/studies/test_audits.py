"""The command `audit`."""

import mnist

import networks
from conftest import call


def test_the_audit_prints_a_table_and_its_verdict_is_the_exit_status(
    monkeypatch, capsys, model, tiny
):
    status, out, _ = call(monkeypatch, capsys, "audit", *tiny(), "--times", "500")
    assert status == 0
    assert "adjoint" in out
    assert "all checks pass" in out
    monkeypatch.setattr(
        mnist, "load_denoiser", lambda *_: networks.coarse(mnist.weights.load_denoiser(model))
    )
    status, out, _ = call(monkeypatch, capsys, "audit", "--times", "500")
    assert status == 1
    assert "FAIL" in out
    assert "some checks fail" in out
