"""The studies of J on latent models: each finds what dense linear algebra finds, and a slip is
answered with a remedy.
"""

import numpy as np
import pytest
import torch

from jacobian_lab import Arnoldi, InputError, JacobianOperator, arnoldi, load_latent
from jacobian_lab.sampling.sampler import seed_of, seeded_noise
from studies.frame import (
    models,
)
from studies.frame.model_files import pipeline_hash
from studies.frame.models import operator_at
from studies.frame.options import OnModel
from studies.jacobian.eigenvectors import Eigenvectors
from studies.jacobian.eigenvectors_plot import MOVES
from studies.jacobian.symmetry import Symmetry, seen_by_products, seen_whole
from studies.sampling import (
    contraction,
)
from studies.sampling.contraction import predictions, predictions_by_products

import networks
import pipelines
from conftest import call, relative

pytest.importorskip("diffusers")
PROMPT = "a photo of a seven"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The miniature's pipeline, narrow and with random weights: for what a study does, not for what
    it finds.
    """
    return pipelines.miniature(tmp_path_factory.mktemp("pipelines") / "narrow")


def test_eigenvalues_with_a_prompt_and_guidance_and_the_manifest(run, folder):
    words = {"prompt": PROMPT, "negative_prompt": "a photo of a one", "guidance": 3.0}
    data, rows, manifest = run(
        "eigenvalues",
        "--model",
        folder,
        "--digits",
        "1",
        "--seeds",
        "1",
        "--times",
        "600",
        "--prompt",
        PROMPT,
        "--negative-prompt",
        "a photo of a one",
        "--guidance",
        "3",
    )
    A = pipelines.dense_at_digit(folder, 0, 600, **words)
    expected = [abs(np.linalg.eigvals(B)).max() for B in (A, (A + A.T) / 2, (A - A.T) / 2)]
    np.testing.assert_allclose(data["truth"][0], expected, rtol=1e-5)
    assert (
        abs(data["largest"][0, 0] - expected) <= data["error"][0, 0] + 1e-5 * np.array(expected)
    ).all()
    # the words matter
    assert (
        abs(abs(np.linalg.eigvals(pipelines.dense_at_digit(folder, 0, 600))).max() - expected[0])
        > 1e-3 * expected[0]
    )
    assert manifest["weights"] == {str(folder): pipeline_hash(str(folder))}
    assert {"diffusers", "transformers"} <= manifest["versions"].keys()
    assert float(rows[0]["first_dense"]) == pytest.approx(expected[0], rel=1e-4)


@pytest.mark.slow
def test_spectrum_is_the_dense_one_and_that_of_all_arnoldi_steps(run, folder):
    data, _, _ = run("spectrum", "--model", folder, "--arnoldi-steps", "12")
    config = OnModel(model=str(folder))
    model = config.load(dtype=torch.float64)
    f = arnoldi(operator_at(model.denoiser, config.inputs(model).clean[0], 0, 500, 0), 256)
    assert f.exhausted
    np.testing.assert_allclose(
        data["ritz"][11, :12], Arnoldi(f.operator, f.basis[:, 0]).extend(12).ritz()[0], atol=1e-9
    )
    values = np.linalg.eigvals(pipelines.dense_at_digit(folder, 0, 500))
    for found in (data["eigenvalues"], f.ritz()[0]):
        distance = abs(found[:, None] - values)
        assert max(distance.min(0).max(), distance.min(1).max()) < 1e-6 * abs(values).max()


def test_symmetry_of_a_latent_pixel(run, folder):
    data, rows, _ = run(
        "symmetry",
        "--model",
        folder,
        "--digits",
        "1",
        "--times",
        "600",
        "--shown",
        "600",
        "--pixel",
        "2",
        "5",
        "--channel",
        "3",
    )
    A = pipelines.dense_at_digit(folder, 0, 600)
    entry = 3 * 64 + 2 * 8 + 5
    assert relative(data["column"][0].reshape(-1), A[:, entry]) < 1e-4
    assert relative(data["row"][0].reshape(-1), A[entry]) < 1e-4
    assert relative(data["skew"][0].reshape(-1), np.linalg.norm(A - A.T, axis=1) / 2) < 1e-4
    assert data["truth"][0] == pytest.approx(
        np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T), rel=1e-4
    )
    assert data["denoised"].shape == (1, 1, 32, 32)
    assert sum(row["dense"] != "" for row in rows) == 1


def test_by_default_the_pixel_is_in_the_middle():
    assert Symmetry().entry((1, 32, 32)) == (0, 16, 16)
    assert Symmetry().entry((4, 8, 8)) == (0, 4, 4)
    with pytest.raises(InputError, match=r"--channel 4 is none of the model's: expected 0 to 3"):
        Symmetry(channel=4).entry((4, 8, 8))
    with pytest.raises(
        InputError,
        match=r"--pixel 8 0 is outside the image: expected row and column, 0 to 7 and 0 to 7",
    ):
        Symmetry(pixel=(8, 0)).entry((4, 8, 8))


def test_eigenvectors_are_shown_decoded(run, folder):
    data, rows, _ = run("eigenvectors", "--model", folder, "--time", "500", "--k", "2")
    A = pipelines.dense_at_digit(folder, Eigenvectors().digit, 500)
    values, vectors = np.linalg.eigh((A + A.T) / 2)
    np.testing.assert_allclose(data["values"], values[:-3:-1], rtol=1e-4)
    assert all(abs(data["vectors"][k] @ vectors[:, -1 - k]) > 0.999 for k in range(2))
    latent = load_latent(folder)
    x_t = torch.from_numpy(data["x_t"])[None]
    with torch.no_grad():
        d = latent.denoiser(x_t, 500)
        v = torch.from_numpy(data["vectors"][1]).float().reshape(d.shape)
        s = float(rows[1]["posterior_standard_deviation"])
        shown = torch.cat([latent.decode(d + m * s * v) for m in MOVES])
    np.testing.assert_allclose(data["moved"][1], shown, atol=1e-3)
    change = (shown[3] - shown[1]) / (2 * s)
    assert relative(data["components"][1], change) < 1e-2


def test_convergence_on_a_half_masked_latent(run, folder):
    data, rows, manifest = run(
        "convergence",
        "--model",
        folder,
        "--digits",
        "2",
        "--steps",
        "2",
        "--newton-steps",
        "1",
        "--jacobians",
        "1",
        "--points",
        "2",
        "--spectral",
        "0.5",
        "--change",
        "0.02",
    )
    assert data["residual"].shape == (2, 2, 2, 2)
    assert data["sizes"].tolist() == [256, 128]
    # |1 - lambda mu^2|, mu from 10 Arnoldi steps
    np.testing.assert_allclose(data["real"][0], 0.5, rtol=0.3)
    np.testing.assert_allclose(data["linear"][1], data["measured"][1], rtol=0.01)  # steps of 0.02
    config = OnModel(model=str(folder))
    model = config.load()
    t = int(data["time"][0])
    x_t = seeded_noise([seed_of(0, 0)], (4, 8, 8)) * data["scale"][0]
    mu = abs(
        np.linalg.eigvals(JacobianOperator(model.denoiser, x_t, t).dense().astype(np.float64))
    ).max()
    np.testing.assert_allclose(data["mu"][:, 0, 0], mu, rtol=1e-4)  # each rule starts there
    np.testing.assert_allclose(data["arnoldi"][:, 0, 0], mu, rtol=0.15)
    assert any("mu by 10 Arnoldi steps" in row["quantity"] for row in rows)
    assert manifest["weights"].keys() == {str(folder), "classifier"}
    assert any(
        row["quantity"] == "classifier agrees with the true digit" and row["of"] == "2"
        for row in rows
    )


def test_predictions_by_products_are_those_of_the_dense_matrix():
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    A = (Q * 0.4 ** np.arange(40)) @ Q.T + 1e-3 * rng.standard_normal((40, 40))
    known, e = rng.random(40) < 0.5, rng.standard_normal(40)
    e[~known] = 0
    dense, found = predictions(A, known, e, 0.7), predictions_by_products(A, known, e, 0.7)
    assert dense.keys() == found.keys()
    for key in ("linear", "symmetric", "without_mask", "real", "complex", "mask", "ratio"):
        assert float(found[key]) == pytest.approx(float(dense[key]), rel=1e-6), key
    assert np.isnan(found["radius"])


def test_a_large_j_is_seen_by_products():
    denoiser = networks.denoiser()
    J = JacobianOperator(denoiser, torch.randn(1, *denoiser.shape, dtype=torch.float64), 300)
    whole, found = seen_whole(J.dense(), 5), seen_by_products(J, 5)
    for key in ("column", "row"):
        np.testing.assert_allclose(found[key], whole[key], atol=1e-10)
    for key in ("skew", "symmetric"):
        assert relative(found[key], whole[key]) < 0.2  # estimates


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(
            ("eigenvalues", "--digits", "1", "--seeds", "1", "--times", "500"),
            marks=pytest.mark.slow,
        ),
        ("spectrum", "--arnoldi-steps", "12"),
        ("symmetry", "--digits", "1", "--times", "500", "--shown", "500"),
        (
            "convergence",
            "--digits",
            "1",
            "--steps",
            "2",
            "--newton-steps",
            "1",
            "--jacobians",
            "1",
            "--points",
            "1",
            "--spectral",
            "0.5",
        ),
        pytest.param(
            ("guidance", "--digits", "1", "--guidances", "0", "2", "--times", "500"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_without_a_dense_truth_studies_do_what_products_allow(run, monkeypatch, folder, words):
    for module in (models, contraction):
        monkeypatch.setattr(module, "DENSE", 255)
    monkeypatch.setattr(
        JacobianOperator, "dense", lambda self: pytest.fail("J is too large to be dense")
    )
    data, rows, _ = run(*words, "--model", folder)
    assert rows
    if words[0] == "spectrum":
        assert data["eigenvalues"].shape == (12,)
        assert {row["quantity"] for row in rows} >= {"ritz values", "trace of H"}
    elif words[0] == "convergence":
        assert np.isfinite(data["linear"]).all()
        assert np.isnan(data["share"]).all()
    else:
        assert all(row.get("dense", row.get("first_dense")) == "" for row in rows)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["audit", "--prompt", "x"],
            (
                "--prompt is for latent models, and --model mnist denoises pixels: leave it out, or"
                " take"
            ),
        ),
        (
            ["eigenvalues", "--model", "oracle", "--guidance", "2"],
            "--guidance is for latent models, and --model oracle denoises",
        ),
        (["spectrum", "--negative-prompt", "x"], "--negative-prompt is for latent models"),
        (
            ["audit", "--model", "FOLDER", "--negative-prompt", "x"],
            "--negative-prompt has no effect with --guidance 1",
        ),
        (["audit", "--model", "FOLDER", "--guidance", "nan"], "--guidance must be finite: got nan"),
        (
            ["spectrum", "--model", "FOLDER", "--arnoldi-steps", "300"],
            "--arnoldi-steps must lie from 10 to 256, the size of this model's J",
        ),
        (
            ["symmetry", "--model", "FOLDER", "--channel", "4"],
            "--channel 4 is none of the model's: expected 0 to 3",
        ),
        (["audit", "--model", "FOLDER", "--times", "1000"], "outside this schedule"),
        (
            ["audit", "--image", "nowhere.png"],
            "there is no file nowhere.png: --images must be an image",
        ),
        (["audit", "--model", "nobody/nothing"], "`hf download nobody/nothing` fetches it"),
    ],
)
def test_slips_are_answered_with_a_remedy(monkeypatch, capsys, tmp_path, folder, words, message):
    monkeypatch.chdir(tmp_path)
    places = {"FOLDER": folder}
    status, _, err = call(monkeypatch, capsys, *(places.get(word, word) for word in words))
    assert status == 2
    assert message in " ".join(err.split())
