"""What the denoiser and the classifier minimise."""

import pytest
import torch

from jacobian_lab import RectifiedFlow
from mnist.tasks import classification_loss, denoising_loss
from mnist.weights import build_denoiser


def test_times_cover_all_levels_and_stay_inside_at_the_edge_of_rounding(monkeypatch):
    """127 + (1 - 2^-24) is 128 in float32."""
    denoiser, seen = build_denoiser({"channels": [32, 32, 32]}, "v"), []

    def network(x, t):
        seen.append(t)
        return torch.zeros_like(x)

    denoising_loss(denoiser)(network, torch.zeros(125, 1, 32, 32), torch.zeros(125))
    assert ((seen[0] // 8) == torch.arange(125)).all()
    monkeypatch.setattr(torch, "rand", lambda n: torch.full((n,), 1 - 2**-24))
    denoising_loss(denoiser)(network, torch.zeros(128, 1, 32, 32), torch.zeros(128))
    assert seen[1].max() == 999


@pytest.mark.parametrize("prediction", ["epsilon", "v", "sample", "flow"])
def test_the_loss_is_zero_for_the_raw_output_and_one_off_for_one_more(prediction):
    """The target, written out from the schedule: not by the function under test."""
    denoiser = build_denoiser({"channels": [32, 32, 32]}, prediction)
    images = torch.randn(40, 1, 32, 32, generator=torch.Generator().manual_seed(1))

    def perfect(x_t, t):
        alpha, sigma = (c.reshape(-1, 1, 1, 1) for c in denoiser.schedule(t))
        noise = (x_t - alpha * images) / sigma
        return {
            "epsilon": noise,
            "v": alpha * noise - sigma * images,
            "sample": images,
            "flow": noise - images,
        }[prediction]

    loss = denoising_loss(denoiser)
    torch.manual_seed(0)
    assert float(loss(perfect, images, torch.zeros(40))) < 1e-5
    torch.manual_seed(0)
    more = loss(lambda x_t, t: perfect(x_t, t) + 1, images, torch.zeros(40))
    assert float(more) == pytest.approx(1, abs=1e-2)


def test_flow_times_lie_in_the_unit_interval_one_in_each_stratum():
    denoiser, seen = build_denoiser({"channels": [32, 32, 32]}, "flow"), []
    assert isinstance(denoiser.schedule, RectifiedFlow)
    loss = denoising_loss(denoiser)
    loss(lambda x, t: (seen.append(t), x)[1], torch.zeros(125, 1, 32, 32), torch.zeros(125))
    assert ((125 * seen[0]).long() - torch.arange(125)).abs().max() <= 1
    assert 0 < seen[0].min() <= seen[0].max() <= 1


def test_the_classifier_sees_digits_moved_at_random_and_smoothed_labels():
    images, labels, seen = torch.full((3, 1, 32, 32), -1.0), torch.tensor([0, 1, 2]), []
    images[:, :, 8:24, 8:24] = 1.0

    def network(x):
        seen.append(x)
        return 100 * torch.nn.functional.one_hot(labels, 10).float()

    losses = [float(classification_loss(network, images, labels)) for _ in range(2)]
    assert not torch.equal(seen[0], seen[1])
    assert seen[0].min() >= -1
    assert seen[0].max() <= 1 + 1e-6
    # sure of each label, it pays for the share of 0.1 that lies on the nine others
    assert losses == pytest.approx([0.1 * 0.9 * 100] * 2, rel=1e-5)
