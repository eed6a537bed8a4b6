"""What must reproduce an observation: samples, beside other images, with scores over digits."""

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import Denoiser, DiscreteSchedule, InputError
from jacobian_lab.constraints.linear import Inpainting
from jacobian_lab.constraints.masks import half
from jacobian_lab.sampling.newton import Newton
from studies.frame.models import Inputs, Model
from studies.frame.statistics import mean_interval, rate_interval
from studies.frame.study import Pieces
from studies.sampling.reconstruction import Observed, interval, plot, sample_and_score, table

SHAPE = (1, 32, 32)
CONFIG = Observed(digit=3, digits=2, samples=2, steps=2, newton_steps=1)


class Shrinking(torch.nn.Module):
    """Predicts that x_0 is half of x_t."""

    def forward(self, x, t):
        return x / 2


def model(space="pixels", **maps):
    network = Shrinking().eval()
    denoiser = Denoiser(network, DiscreteSchedule.linear(), "sample", SHAPE)
    return Model(denoiser, SHAPE, "cpu", torch.float32, space, digits=True, **maps)


def drawn(folder, used, truth=True, **others):
    """The arrays of a run on two digits of which the left half is known."""
    inputs = CONFIG.inputs(used)
    problem = Inpainting(inputs.images if truth else inputs.images[:1], half(SHAPE))
    return sample_and_score(
        CONFIG, Pieces(folder), used, problem, inputs if truth else None, others
    )


@pytest.fixture
def arrays(tmp_path):
    images = mnist.digits("held-out")[0][3:5]
    others = {"black": torch.full_like(images, -1), "itself": images}
    return drawn(tmp_path, model(), **others)


def test_every_method_is_scored_against_the_truth(arrays):
    images = mnist.digits("held-out")[0][3:5]
    names = ["sampled", "projected", "unconstrained", "black", "itself"]
    assert arrays["method"].tolist() == names
    assert arrays["images"].shape == (5, 2, 2, *SHAPE)
    sampled, projected, free, black, itself = arrays["images"]
    for k in (0, 1):  # each of a digit's two samples
        np.testing.assert_allclose(projected[:, k, ..., :16], images[..., :16], atol=1e-6)
        np.testing.assert_array_equal(itself[:, k], images)
    np.testing.assert_array_equal(projected[..., 16:], sampled[..., 16:])
    assert (sampled[:, 0] != sampled[:, 1]).any()
    assert (black == -1).all()
    known = (images[..., :16] - torch.from_numpy(free[:, 0, ..., :16])).square()
    np.testing.assert_allclose(arrays["missing"][2, :, 0], known.mean((1, 2, 3)).sqrt(), rtol=1e-4)
    assert arrays["missing"][[1, 4]].max() < 1e-6 < arrays["missing"][0].min()
    error = (images + 1).square().mean((1, 2, 3))
    np.testing.assert_allclose(arrays["psnr"][3, :, 1], 10 * torch.log10(4 / error), rtol=1e-5)
    np.testing.assert_allclose(arrays["ssim"][4], 1, rtol=1e-5)
    assert arrays["agreement"][4].all()
    assert arrays["residual"].shape == (4, 2, 2)
    np.testing.assert_allclose(
        arrays["residual"][:, -1, -1], arrays["missing"][0].reshape(-1), rtol=1e-4
    )


def test_the_table_has_a_row_for_each_method_and_charges_only_samples(arrays):
    rows = {row["method"]: row for row in table(arrays)}
    assert list(rows) == arrays["method"].tolist()
    for m, row in enumerate(rows.values()):
        missing = arrays["missing"][m]
        assert (row["digits"], row["samples_of_each"]) == (2, 2)
        assert row["rmse_of_the_observed_mean"] == pytest.approx(missing.mean())
        assert row["rmse_largest"] == pytest.approx(missing.max())
        assert row["psnr"] == pytest.approx(arrays["psnr"][m].mean(), rel=1e-5)
        assert row["psnr_low"] <= row["psnr"] <= row["psnr_high"]
    charged = {name: row["forward_passes"] for name, row in rows.items()}
    # 2 times x (2 x 1 + 1), and 2 times
    assert charged == {"sampled": 6, "projected": 6, "unconstrained": 2, "black": 0, "itself": 0}


def test_without_a_truth_nothing_is_scored(tmp_path):
    found = drawn(tmp_path, model(), truth=False)
    assert not {"truth", "psnr", "ssim", "agreement"} & found.keys()
    assert found["digit"].tolist() == [3]
    assert found["images"].shape == (3, 1, 2, *SHAPE)
    assert "psnr" not in table(found)[0]


def test_what_the_autoencoder_makes_of_the_truth_bounds_the_samples(tmp_path):
    images = mnist.digits("held-out")[0][3:5]
    # latents lose their second decimal
    lossy = model("latent", encode=lambda x: x / 2, decode=lambda z: 2 * z.round(decimals=1))
    found = drawn(tmp_path, lossy)
    assert found["method"].tolist()[3:] == ["autoencoder"]
    np.testing.assert_allclose(
        found["images"][3, :, 0], 2 * (images / 2).round(decimals=1), atol=1e-6
    )


def test_images_that_are_no_digits_are_not_judged(tmp_path):
    used, images = model(), mnist.digits("held-out")[0][3:5]
    truth = Inputs(images, images, None, [3, 4], ["a", "b"])
    problem = Inpainting(images, half(SHAPE))
    found = sample_and_score(CONFIG, Pieces(tmp_path), used, problem, truth, {})
    assert {"psnr", "ssim"} <= found.keys()
    assert "agreement" not in found


def test_digits_are_the_independent_trials_not_their_samples():
    values = np.random.default_rng(0).normal(20, 3, (12, 4))
    assert interval(values, "psnr") == mean_interval(values.mean(1))
    np.testing.assert_allclose(
        interval(np.repeat(values, 5, axis=1), "psnr"), interval(values, "psnr")
    )
    named = np.repeat([[True]] * 9 + [[False]] * 3, 4, axis=1)
    assert interval(named, "agreement") == rate_interval(9, 12)
    named[0, 0] = False  # a sample is a quarter of a digit
    assert interval(named, "agreement") == rate_interval(8.75, 12)
    assert interval(np.arange(10)[None] < 4, "agreement") == rate_interval(0.4, 1)


def test_the_figure_has_a_row_for_each_kind_of_image_and_the_scores(arrays):
    figure = plot(arrays, {"observed": arrays["truth"]}, "What is missing", "residual")
    pictures, panels = figure.subfigs
    labels = [axes.get_ylabel() for axes in pictures.axes if axes.get_ylabel()]
    assert labels == ["truth", "observed", "sampled 1", "sampled 2", "unconstrained"]
    assert [axes.get_title() for axes in pictures.axes[:2]] == ["digit 3", "digit 4"]
    shown = [axes.images[0].get_array() for axes in pictures.axes]
    np.testing.assert_array_equal(shown[4], arrays["images"][0, 0, 0, 0])
    along, psnr, agreement = panels.axes
    assert along.get_ylabel() == "residual"
    assert along.get_title() == "What is missing\n4 samples: median, 10-90 %"
    assert agreement.get_xlim() == (0, 1)
    ticks = [label.get_text() for label in psnr.get_yticklabels()]
    assert ticks == arrays["method"].tolist()
    middle = [line.get_xdata()[0] for line in psnr.lines if len(line.get_xdata()) == 1]
    np.testing.assert_allclose(middle, arrays["psnr"].mean((1, 2)), rtol=1e-5)
    projected = plot(arrays | {"project": np.array(True)}, {}, "", "").subfigs[0]
    np.testing.assert_array_equal(
        projected.axes[2].images[0].get_array(), arrays["images"][1, 0, 0, 0]
    )


def test_methods_with_equal_scores_are_drawn_once(arrays):
    arrays["psnr"][1] = arrays["psnr"][0] + 0.001
    panels = plot(arrays, {}, "", "").subfigs[1]
    ticks = [label.get_text() for label in panels.axes[1].get_yticklabels()]
    assert ticks == ["sampled or projected", "unconstrained", "black", "itself"]


@pytest.mark.parametrize(
    "option",
    [
        {"direction": "gradient"},
        {"change": 0.1},
        {"rule": "dynamic"},
        {"tolerance": 0.1},
        {"temperature": 0.5},
    ],
)
def test_fair_samples_take_no_options_of_steps(option):
    name = next(iter(option))
    with pytest.raises(InputError, match=f"leave --{name} out, or take --aim likeliest"):
        Observed(aim="fair", **option)
    assert Observed(aim="fair", newton_steps=3).newton() == Newton.fair(3)
    assert Observed(newton_steps=3).newton().aim == "likeliest"


def test_fair_samples_of_decoded_latents_are_refused():
    latent = model("latent", encode=lambda x: x, decode=lambda x: x)
    wanted = Inpainting(torch.zeros(1, *SHAPE), half(SHAPE))
    config = Observed(aim="fair", model="mnist-latent")
    with pytest.raises(InputError, match="--aim fair is for observations that are linear in what"):
        config.carried(wanted, latent)
    assert config.carried(wanted, model()) is wanted


class Spoiling(torch.nn.Module):
    """Predicts that x_0 is half of x_t, and at late times nothing of some, by a pixel of theirs."""

    def forward(self, x, t):
        lost = ((x[:, :, -1:, -1:] < 0) & (t < 900).reshape(-1, 1, 1, 1)).to(x)
        return x / 2 + lost / (1 - lost)


@pytest.mark.filterwarnings("ignore:samples? .* diverged")
def test_samples_that_diverge_are_counted_agree_with_nothing_and_the_others_are_scored(tmp_path):
    network = Spoiling().eval()
    denoiser = Denoiser(network, DiscreteSchedule.linear(), "sample", SHAPE)
    used = Model(denoiser, SHAPE, "cpu", torch.float32, "pixels", digits=True)
    found = drawn(tmp_path, used)
    lost = np.isnan(found["images"]).any((3, 4, 5))
    count = int(lost[0].sum())
    assert 0 < count < 4
    assert (lost[0] == lost[1]).all()
    assert not found["agreement"][lost].any()
    np.testing.assert_array_equal(np.isnan(found["missing"]), lost)
    for row in table(found)[:2]:
        assert row["diverged"] == count
        assert np.isfinite(
            [row["rmse_of_the_observed_mean"], row["rmse_largest"], row["psnr"]]
        ).all()
    plot(found, {}, "title", "label")


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"model": "mnist-latent"}, 0.5),
        ({"model": "mnist-latent", "temperature": 1.0}, 1.0),
        ({"model": "mnist-latent", "aim": "fair"}, 1.0),
        ({}, 1.0),
        ({"temperature": 0.0}, 0.0),
    ],
)
def test_the_miniature_has_less_noise_where_likely_images_are_wanted(options, factor):
    assert Observed(**options).noise_factor() == factor
