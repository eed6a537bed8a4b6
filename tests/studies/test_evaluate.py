"""The scores of a denoiser."""

import numpy as np
import pytest
import torch

from jacobian_lab import InputError
from mnist.evaluate import squared_errors
from studies.jacobian.evaluate import Evaluate, clean_samples, distances_to_real, samples_of

from conftest import call, png


def test_a_card_holds_scores_on_digits_alone(tmp_path):
    with pytest.raises(InputError, match="into a model's card, and oracle has none"):
        Evaluate(model="oracle", record=True)
    png(tmp_path / "a.png", np.full((32, 32), 255))
    with pytest.raises(InputError, match="scores on held-out digits: leave --images out"):
        Evaluate(record=True, images=(tmp_path / "a.png",))


DOUBLE = """
import torch
from jacobian_lab import DiscreteSchedule, gaussian


def make():
    mean, covariance = torch.zeros(1024).double(), torch.eye(1024).double()
    made = gaussian(mean, covariance, DiscreteSchedule.linear(), (1, 32, 32)).denoiser()
    made.digits = True
    return made
"""


def test_a_user_s_model_of_digits_has_its_own_precision(tmp_path):
    (tmp_path / "double.py").write_text(DOUBLE)
    config = Evaluate(model=f"{tmp_path}/double.py:make", samples=64, steps=1)
    model = config.load()
    images, labels = clean_samples(config, model)
    assert squared_errors(model.denoiser, images[:2], 500, 0).dtype == torch.float64
    drawn = torch.from_numpy(samples_of(config, model, 64)["samples"])
    found = distances_to_real(config, images[:128], labels[:128], drawn)
    assert np.isfinite(found["sampled"]).all()


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
