"""What the studies of constrained sampling share: options that fit, and sampling in pieces."""

import numpy as np
import pytest
import torch

from jacobian_lab import DiscreteSchedule, InputError
from jacobian_lab.constraints.decoded import Decoded
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from jacobian_lab.sampling.sampler import sample, seed_of, seeded_noise
from jacobian_lab.sampling.step_size import Dynamic, Secant
from studies.frame.models import Model
from studies.frame.study import Pieces
from studies.sampling import (
    constrained,
)
from studies.sampling.constrained import (
    Constrained,
    batch_size,
    in_batches,
    sample_images,
    spent,
)

from conftest import SHAPE, make_gaussian, relative

COLOUR = (3, 64, 64)


@pytest.fixture
def problem():
    """A Gaussian's denoiser as a model, and halves of five images."""
    oracle = make_gaussian(DiscreteSchedule.linear()).float()
    images = seeded_noise(range(10, 15), SHAPE).clamp(-1, 1)
    return (
        Model(oracle.denoiser(), SHAPE, "cpu", torch.float32),
        Inpainting(images, half(SHAPE)),
    )


def test_large_images_are_drawn_one_at_a_time():
    sizes = [
        batch_size(Model(None, shape, "cpu", torch.float32))
        for shape in ((1, 32, 32), COLOUR, (3, 512, 512))
    ]
    assert sizes == [50, 12, 1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "--samples, --steps, --last-of and --newton-steps must be at least 1"),
        ({"change": 0.0}, "--change must be positive: got 0"),
        ({"eta": 1.5}, "--eta must lie from 0 to 1: got 1.5"),
        ({"direction": "exact"}, "would brake --direction exact wrongly: add --rule dynamic"),
        ({"through": "backprop"}, "--through is for latent models, and --model mnist denoises"),
        ({"model": "mnist-latent", "through": "latents"}, "--through latents is for masks"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Constrained(**options)


def test_the_rule_of_the_step_is_the_one_asked_for():
    assert Constrained().newton() == Newton("inexact", 5, Secant(0.2))
    exact = Constrained(direction="exact", rule="dynamic", change=0.1, newton_steps=2)
    assert exact.newton() == Newton("exact", 2, Dynamic(0.1))


def test_times_are_evenly_spaced_down_to_the_last_of_a_finer_schedule(problem):
    model, _ = problem
    schedule = model.denoiser.schedule
    times = Constrained(steps=20, last_of=100).times(model.denoiser)
    assert (len(times), times[0], times[-1]) == (20, 999, 9)
    gaps = -np.diff(times)
    assert gaps.max() - gaps.min() <= 1
    # one more would be clean: also where --last-of is fewer
    for last_of in (1, 20):
        found = Constrained(steps=20, last_of=last_of).times(model.denoiser)
        assert found == schedule.times(20)


def test_each_sample_has_a_noise_of_its_own():
    seeds = Constrained(samples=4, seed=7).noise_seeds()
    assert seeds == [seed_of(7, k) for k in range(4)]
    assert len({*seeds, *Constrained(samples=4, seed=8).noise_seeds()}) == 8


def test_a_function_of_many_images_is_taken_a_few_at_a_time(monkeypatch):
    model, sizes = Model(None, (1, 32, 32), "cpu", torch.float32), []
    monkeypatch.setattr(constrained, "BATCH", 4)

    def halved(x):
        sizes.append(len(x))
        return x / 2

    x = torch.randn(10, 1, 2, 2)
    assert torch.equal(in_batches(halved, x, model), x / 2)
    assert sizes == [4, 4, 2]
    with pytest.raises(InputError, match="autoencoder"):
        in_batches(lambda x: x / 0, x, model)


def test_what_is_wanted_of_images_is_carried_by_the_form_asked_for(problem):
    model, wanted = problem
    assert Constrained().carried(wanted, model) is wanted
    latent = Model(
        model.denoiser, SHAPE, "cpu", torch.float32, "latent", lambda x: x / 2, lambda z: 2 * z
    )
    for through in ("secant", "tangent", "backprop"):
        goal = Constrained(model="mnist-latent", through=through).carried(wanted, latent)
        assert isinstance(goal, Decoded)
        assert goal.form == through
        z = seeded_noise(range(5), SHAPE)
        # D is twice the latent: every form finds half of the change
        assert torch.allclose(goal.error(z), wanted.error(2 * z) / 2, atol=1e-4)


def test_samples_in_pieces_are_those_of_the_sampler_and_are_kept(monkeypatch, tmp_path, problem):
    model, wanted = problem
    monkeypatch.setattr(constrained, "BATCH", 2)
    config = Constrained(steps=3, newton_steps=2, eta=0.5)
    seeds = [seed_of(0, k) for k in range(5)]
    words = (config, model, seeds, Pieces(tmp_path), "constrained", wanted.select)
    found = sample_images(*words)
    states = list(
        sample(
            model.denoiser,
            seeded_noise(seeds, SHAPE),
            config.times(model.denoiser),
            wanted,
            config.newton(),
            eta=0.5,
            seeds=seeds,
        )
    )
    assert relative(found["images"], states[-1].x0) < 1e-4
    residual = torch.stack([state.residual for state in states], 1).reshape(5, 3, 3)
    assert relative(found["residual"], residual) < 1e-4
    last = states[-1].spent
    assert found["passes"].tolist() == 5 * [[last.forward, last.jvp, last.vjp]]
    assert spent(found["passes"]) == {
        "forward_passes": last.forward,
        "products_Jv": last.jvp,
        "products_JTu": last.vjp,
    }
    assert sorted(path.stem for path in tmp_path.iterdir()) == [
        f"constrained-{k}" for k in (0, 2, 4)
    ]
    monkeypatch.setattr(constrained, "sample", lambda *_, **__: pytest.fail("computed twice"))
    np.testing.assert_array_equal(sample_images(*words)["images"], found["images"])


def test_free_samples_have_no_residual(tmp_path, problem):
    model, _ = problem
    config = Constrained(steps=3)
    found = sample_images(config, model, [1, 2], Pieces(tmp_path), "free")
    assert found.keys() == {"images", "passes"}
    *_, last = sample(
        model.denoiser,
        seeded_noise([1, 2], SHAPE),
        config.times(model.denoiser),
        eta=1.0,
        seeds=[1, 2],
    )
    np.testing.assert_allclose(found["images"], last.x0, atol=1e-5)
    assert found["passes"][:, 0].tolist() == [3, 3]
