"""`jacobian-lab eigenvalues` on a tiny random model of each family that `load` takes."""

import numpy as np
import pytest
import torch

from studies.frame.user_models import GIVEN, make

import adapter_cases
from conftest import call, stored


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of packages
def test_eigenvalues_run_on_every_family(monkeypatch, capsys, tmp_path):
    rows = []
    adapter_cases.cases("edm")  # registers all
    for module, found in adapter_cases.CASES.items():
        for k, case in enumerate(found):
            try:
                adapter_cases.need(case)
            except pytest.skip.Exception as skipped:
                rows.append(f"{module:20} {case.name:55} {skipped}")
                continue
            torch.manual_seed(0)
            name = f"given:{module}{k}"
            GIVEN[name] = case.make(torch.float32)[0]
            made = make(name)
            shape = getattr(made, "image_shape", None) or made.shape
            np.save(tmp_path / "x.npy", np.tanh(np.random.default_rng(0).standard_normal(shape)))
            words = ("--model", name, "--images", tmp_path / "x.npy", "--times", case.t)
            out = tmp_path / f"{module}{k}"
            status, _, err = call(
                monkeypatch, capsys, "eigenvalues", *words, "--seeds", "1", "--out", out
            )
            assert status == 0, (case.name, err)
            data = stored(out)
            largest, converged = float(data["largest"][0, 0, 0]), data["converged"].all()
            assert np.isfinite(largest)
            rows.append(f"{module:20} {case.name:55} {largest:10.4g} {converged}")
            del GIVEN[name]
    with capsys.disabled():
        head = ("adapter", "tiny random model", "eigenvalue", "converged")
        print("\n{:20} {:55} {:>10} {}".format(*head))
        print("\n".join(rows))
    assert len(rows) > 40
