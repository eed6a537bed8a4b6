"""Leading eigenpairs beside those of ARPACK."""

import pytest

from conftest import call


@pytest.mark.slow
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.filterwarnings("default::FutureWarning")
def test_each_method_is_held_against_the_dense_spectrum(monkeypatch, capsys):
    words = ("--k", "2", "--digits", "1", "--times", "500", "--rtol", "1e-3", "--dtype", "float32")
    status, out, _ = call(monkeypatch, capsys, "benchmark", "eigenpairs", *words)
    assert status == 0
    assert "errors as stated, residuals as recomputed with the dense J" in out
    assert "ARPACK on torch.func.jvp, vjp" in out
