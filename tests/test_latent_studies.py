"""The studies of J on latent models: each finds what dense linear algebra finds, and a slip is answered with a remedy."""

import csv
import hashlib
import json
import shutil

import numpy as np
import pipelines
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

import mnist
import networks
from conftest import call, relative
from jacobian_lab import Arnoldi, InputError, JacobianOperator, arnoldi
from jacobian_lab.latent import load_latent
from mnist.evaluate import noisy_digit
from studies import contraction, guidance, models
from studies.contraction import predictions, predictions_by_products
from studies.eigenvectors import MOVES, Eigenvectors, move
from studies.models import OnModel, is_latent, model_files, open_model, operator_at, read_image
from studies.style import show, tile
from studies.symmetry import Symmetry, seen_by_products, seen_whole
from studies.weights import pipeline_hash

pytest.importorskip("diffusers")
PROMPT = "a photo of a seven"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The miniature's pipeline, narrow and with random weights: for what a study does, not for what it finds."""
    from mnist.latent import AUTOENCODER, UNET, Captioned, build_autoencoder, build_pipeline

    torch.manual_seed(0)
    autoencoder = build_autoencoder(AUTOENCODER | {"block_out_channels": (8, 8, 16)})
    path = tmp_path_factory.mktemp("pipelines") / "narrow"
    build_pipeline(autoencoder, Captioned(UNET | {"block_out_channels": (16, 32)})).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A file of 90 x 60 pixels, red on the left and blue on the right."""
    path = tmp_path_factory.mktemp("images") / "photo.png"
    pixels = np.zeros((60, 90, 3), dtype=np.uint8)
    pixels[:, :45, 0], pixels[:, 45:, 2] = 255, 255
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a study; return its arrays, the rows of its table, and the manifest."""
    def command(*words):
        status, _, err = call(monkeypatch, capsys, *words, "--out", tmp_path / "run")
        assert status == 0, err
        with np.load(tmp_path / "run" / "data.npz") as stored:
            data = dict(stored)
        assert (tmp_path / "run" / "figure.png").stat().st_size > 10_000
        rows = list(csv.DictReader((tmp_path / "run" / "table.csv").read_text().splitlines()))
        return data, rows, json.loads((tmp_path / "run" / "manifest.json").read_text())

    return command


def dense(folder, digit, t, **words):
    """J in float64 by torch.func.jacrev, at the digit's latent with the studies' noise."""
    latent = load_latent(folder, dtype=torch.float64, **words)
    with torch.no_grad():
        clean = latent.encode(mnist.digits("held-out")[0][digit:digit + 1].double())[0]
    return networks.truth(latent.denoiser, noisy_digit(latent.denoiser, clean, t, 0, digit), t).numpy()


def test_a_name_is_that_of_pixels_or_of_latents(tmp_path, monkeypatch, model, folder):
    monkeypatch.chdir(tmp_path)
    for name in ("denoiser", "mnist", "mine"):
        (tmp_path / name).mkdir()
    pixels = ("mnist", "mnist-flow", "denoiser", "flow", "oracle", model, model + ".safetensors", "./runs/denoiser", "unet")
    assert not any(is_latent(name) for name in pixels)
    assert all(is_latent(name) for name in ("mnist-latent", str(folder), "mine", "somebody/stable-diffusion-v1-5"))
    assert model_files(OnModel()) == {"denoiser": "denoiser"}
    assert model_files(OnModel(model="mnist-flow")) == {"flow": "denoiser"}
    assert model_files(OnModel(model="oracle")) == {}
    assert model_files(OnModel(model=str(folder))) == {str(folder): "pipeline"}
    with pytest.raises(InputError, match=r"narrow denoises latents, and here pixels are wanted: take mnist"):
        models.load_model(str(folder), "cpu")


def test_pixel_models_are_their_own_space():
    opened = open_model("mnist", "cpu")
    x = torch.randn(2, 1, 32, 32)
    assert opened.encode(x) is opened.decode(x) is x
    assert (opened.space, opened.image_shape, opened.size) == ("pixels", (1, 32, 32), 1024)
    inputs = OnModel(digit=7).inputs(opened, 2)
    assert torch.equal(inputs.clean, mnist.digits("held-out")[0][7:9])
    assert (inputs.numbers, inputs.names, inputs.labels.tolist()) == ([7, 8], ["digit 7", "digit 8"], [7, 8])


def test_eigenvalues_with_a_prompt_and_guidance_and_the_manifest(run, folder):
    words = {"prompt": PROMPT, "negative_prompt": "a photo of a one", "guidance": 3.0}
    data, rows, manifest = run("eigenvalues", "--model", folder, "--digits", "1", "--seeds", "1", "--times", "600", "--prompt",
                               PROMPT, "--negative-prompt", "a photo of a one", "--guidance", "3")
    A = dense(folder, 0, 600, **words)
    expected = [abs(np.linalg.eigvals(B)).max() for B in (A, (A + A.T) / 2, (A - A.T) / 2)]
    np.testing.assert_allclose(data["truth"][0], expected, rtol=1e-5)
    assert (abs(data["largest"][0, 0] - expected) <= data["error"][0, 0] + 1e-5 * np.array(expected)).all()
    assert abs(abs(np.linalg.eigvals(dense(folder, 0, 600))).max() - expected[0]) > 1e-3 * expected[0]  # the words matter
    assert manifest["weights"] == {str(folder): pipeline_hash(str(folder))}
    assert {"diffusers", "transformers"} <= manifest["versions"].keys()
    assert float(rows[0]["first_dense"]) == pytest.approx(expected[0], rel=1e-4)


def test_spectrum_is_the_dense_one_and_that_of_all_arnoldi_steps(run, folder):
    data, _, _ = run("spectrum", "--model", folder, "--steps", "12")
    config = OnModel(model=str(folder))
    model = config.load(dtype=torch.float64)
    f = arnoldi(operator_at(model.denoiser, config.inputs(model).clean[0], 0, 500, 0), 256)
    assert f.exhausted
    np.testing.assert_allclose(data["ritz"][11, :12], Arnoldi(f.operator, f.basis[:, 0]).extend(12).ritz()[0], atol=1e-9)
    values = np.linalg.eigvals(dense(folder, 0, 500))
    for found in (data["eigenvalues"], f.ritz()[0]):
        distance = abs(found[:, None] - values)
        assert max(distance.min(0).max(), distance.min(1).max()) < 1e-6 * abs(values).max()


def test_symmetry_of_a_latent_pixel(run, folder):
    data, rows, _ = run("symmetry", "--model", folder, "--digits", "1", "--times", "300", "600", "--shown", "600", "--pixel",
                        "2", "5", "--channel", "3")
    A = dense(folder, 0, 600)
    entry = 3 * 64 + 2 * 8 + 5
    assert relative(data["column"][0].reshape(-1), A[:, entry]) < 1e-4
    assert relative(data["row"][0].reshape(-1), A[entry]) < 1e-4
    assert relative(data["skew"][0].reshape(-1), np.linalg.norm(A - A.T, axis=1) / 2) < 1e-4
    assert data["truth"][1] == pytest.approx(np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T), rel=1e-4)
    assert data["denoised"].shape == (1, 1, 32, 32)
    assert sum(row["dense"] != "" for row in rows) == 2


def test_by_default_the_pixel_is_in_the_middle():
    assert Symmetry().entry((1, 32, 32)) == (0, 16, 16)
    assert Symmetry().entry((4, 8, 8)) == (0, 4, 4)
    with pytest.raises(InputError, match=r"--channel 4 is none of the model's: expected 0 to 3"):
        Symmetry(channel=4).entry((4, 8, 8))
    with pytest.raises(InputError, match=r"--pixel 8 0 is outside the image: expected row and column, 0 to 7 and 0 to 7"):
        Symmetry(pixel=(8, 0)).entry((4, 8, 8))


def test_eigenvectors_are_shown_decoded(run, folder):
    data, rows, _ = run("eigenvectors", "--model", folder, "--time", "500", "--count", "2")
    A = dense(folder, Eigenvectors().digit, 500)
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
    data, rows, manifest = run("convergence", "--model", folder, "--digits", "2", "--steps", "2", "--newton-steps", "1",
                               "--jacobians", "1", "--points", "2", "--spectral", "0.5", "--change", "0.02")
    assert data["residual"].shape == (2, 2, 2, 2)
    assert data["sizes"].tolist() == [256, 128]
    np.testing.assert_allclose(data["real"][0], 0.5, rtol=0.3)  # |1 - lambda mu^2|, mu from 10 Arnoldi steps
    np.testing.assert_allclose(data["linear"][1], data["measured"][1], rtol=0.01)  # steps of 0.02
    assert manifest["weights"].keys() == {str(folder), "classifier"}
    assert any(row["quantity"] == "classifier agrees with the true digit" and row["of"] == "2" for row in rows)


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


@pytest.mark.parametrize("words", [
    ("eigenvalues", "--digits", "1", "--seeds", "1", "--times", "500"), ("spectrum", "--steps", "12"),
    ("symmetry", "--digits", "1", "--times", "500", "--shown", "500"),
    ("convergence", "--digits", "1", "--steps", "2", "--newton-steps", "1", "--jacobians", "1", "--points", "1",
     "--spectral", "0.5"),
    ("guidance", "--digits", "1", "--scales", "0", "2", "--times", "500"),
])
def test_without_a_dense_truth_studies_do_what_products_allow(run, monkeypatch, folder, words):
    for module in (models, contraction):
        monkeypatch.setattr(module, "DENSE", 255)
    monkeypatch.setattr(JacobianOperator, "dense", lambda self: pytest.fail("J is too large to be dense"))
    data, rows, _ = run(*words, "--model", folder)
    assert rows
    if words[0] == "spectrum":
        assert data["eigenvalues"].shape == (12,)
        assert {row["quantity"] for row in rows} >= {"ritz_values", "trace_of_H"}
    elif words[0] == "convergence":
        assert np.isfinite(data["linear"]).all()
        assert np.isnan(data["share"]).all()
    else:
        assert all(row.get("dense", row.get("first_dense")) == "" for row in rows)


def test_guidance_is_that_of_load_latent_and_its_trace_a_straight_line(run, folder):
    data, rows, _ = run("guidance", "--model", folder, "--digits", "1", "--scales", "0", "1", "4", "--times", "600")
    networks_at = {0: {"prompt": ""}, 1: {"prompt": PROMPT}, 4: {"prompt": PROMPT, "guidance": 4.0}}
    for s, words in enumerate(networks_at.values()):
        A = dense(folder, 7, 600, **words)
        truth = {"largest": abs(np.linalg.eigvals(A)).max(), "trace": np.trace(A),
                 "asymmetry": np.linalg.norm(A - A.T) / np.linalg.norm(A + A.T)}
        for key, value in truth.items():
            assert data[f"{key}_dense"][0, s] == pytest.approx(value, rel=1e-5), key
            low, high = data[f"{key}_interval"][0, s, 0]
            room = 0.5 * (high - low) + 1e-5 * abs(value)  # of a 95 % interval: this seed's may be one that misses
            assert low - room <= value <= high + room, key
    zero, one, four = data["trace_dense"][0]
    assert four - zero == pytest.approx(4 * (one - zero), rel=1e-6)
    assert {row["caption"] for row in rows} == {PROMPT}
    assert data["denoised"].shape == (1, 3, 1, 32, 32)


def test_guidance_at_0_and_1_is_one_network_exactly(folder):
    config = guidance.Guidance(model=str(folder), negative_prompt="one")
    both = config.load(PROMPT, "cpu").denoiser
    x = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for scale, prompt in ((0, "one"), (1, PROMPT)):
        assert torch.equal(guidance.at_scale(both, scale)(x, 500), load_latent(folder, prompt=prompt).denoiser(x, 500))


def test_other_weights_or_another_scheduler_in_the_same_folder_are_another_run(tmp_path, folder):
    mine = tmp_path / "mine"
    shutil.copytree(folder, mine)
    weights, config = pipeline_hash(str(mine)), OnModel(model=str(mine))
    assert weights == pipeline_hash(str(folder))  # of the content, not of the place
    pipelines.edit(mine / "scheduler" / "scheduler_config.json", prediction_type="epsilon")
    assert pipeline_hash(str(mine)) == weights
    assert OnModel(model=str(mine)).hashes != config.hashes
    content = bytearray((mine / "unet" / "diffusion_pytorch_model.safetensors").read_bytes())
    content[-1] ^= 1
    (mine / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(content)
    assert pipeline_hash(str(mine)) != weights


@pytest.mark.parametrize(("kind", "time"), [("stable diffusion", "500"), ("stable diffusion 3", "0.5"), ("instaflow", "0.5")])
def test_natural_images_come_from_a_file(monkeypatch, capsys, tmp_path, photo, kind, time):
    if kind == "instaflow":
        pipelines.instaflow(tmp_path / "sd")
    else:
        (pipelines.stable_diffusion_3 if kind.endswith("3") else pipelines.stable_diffusion)().save_pretrained(tmp_path / "sd")
    status, _, err = call(monkeypatch, capsys, "audit", "--model", tmp_path / "sd", "--times", time)
    assert status == 2
    assert "takes images of 3x64x64 (channels, height, width), digits are 1x32x32: name an image with --image FILE" in err
    status, out, err = call(monkeypatch, capsys, "audit", "--model", tmp_path / "sd", "--times", time, "--image", photo)
    assert status == 0, out + err
    assert "photo.png, t = 0.5" in out or "photo.png, t = 500" in out
    assert "all checks pass" in out


def test_components_of_colours_are_decoded_and_shown(tmp_path, photo):
    pipelines.stable_diffusion().save_pretrained(tmp_path / "sd")
    config = OnModel(model=str(tmp_path / "sd"), image=photo)
    model = config.load()
    inputs = config.inputs(model)
    assert inputs.images[0, 0, :, 2].min() > 0.99  # red on the left
    found = move(model, inputs.clean, np.eye(1, 256), np.array([0.5]))
    assert found["moved"].shape == (1, 5, 3, 64, 64)
    with torch.no_grad():
        np.testing.assert_allclose(found["moved"][0, 2], model.decode(inputs.clean)[0], atol=1e-5)
    assert np.isfinite(found["components"]).all()
    axes = Figure().subplots()
    shown = show(axes, inputs.images[0].numpy())
    np.testing.assert_allclose(shown.get_array()[:, 0, 0], 1, atol=1e-6)
    assert show(axes, found["components"][0], limit=1.0).get_array().shape == (64, 64)  # signed: no colours


def test_an_image_is_cut_in_its_middle_scaled_and_turned_upright(photo, tmp_path):
    image = read_image(photo, (3, 30, 30))
    assert image.shape == (1, 3, 30, 30)
    assert torch.equal(image[0, 0, :, 0], torch.ones(30))
    assert torch.equal(image[0, 2, :, -1], torch.ones(30))
    assert torch.equal(image[0, 1], -torch.ones(30, 30))
    gray = read_image(photo, (1, 32, 32))
    assert gray[0, 0, 0, 0] > gray[0, 0, 0, -1]  # red is brighter than blue
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held sideways: the left of the file is the top of the picture
    with Image.open(photo) as file:
        file.save(turned, exif=exif, quality=100)
    upright = read_image(turned, (3, 30, 30))
    assert upright[0, 0, 2].mean() > 0.9
    assert upright[0, 2, -2].mean() > 0.9
    (tmp_path / "note.png").write_text("no image")
    with pytest.raises(InputError, match=r"--image .*note.png is not an image that can be read"):
        read_image(tmp_path / "note.png", (3, 30, 30))


def test_an_image_file_takes_the_place_of_digits(photo):
    config = OnModel(image=photo, digit=3)
    inputs = config.inputs(open_model("mnist", "cpu", torch.float64), 4)
    assert (inputs.numbers, inputs.names, inputs.labels) == ([3], ["photo.png"], None)
    assert inputs.clean.shape == (1, 1, 32, 32)
    assert inputs.clean.dtype == torch.float64
    assert config.hashes["image"] == hashlib.sha256(photo.read_bytes()).hexdigest()


def test_tiles_lie_side_by_side():
    channels = np.arange(4 * 2 * 3).reshape(4, 2, 3)
    tiles = tile(channels)
    assert tiles.shape == (4, 6)
    np.testing.assert_array_equal(tiles, np.block([[channels[0], channels[1]], [channels[2], channels[3]]]))
    np.testing.assert_array_equal(tile(channels[:1]), channels[0])


@pytest.mark.parametrize(("words", "message"), [
    (["audit", "--prompt", "x"], "--prompt is for latent models, and --model mnist denoises pixels: leave it out, or take"),
    (["eigenvalues", "--model", "oracle", "--guidance", "2"], "--guidance is for latent models, and --model oracle denoises"),
    (["spectrum", "--negative-prompt", "x"], "--negative-prompt is for latent models"),
    (["audit", "--model", "FOLDER", "--negative-prompt", "x"], "--negative-prompt has no effect with --guidance 1"),
    (["audit", "--model", "FOLDER", "--guidance", "nan"], "--guidance must be a finite number: got nan"),
    (["spectrum", "--model", "FOLDER", "--steps", "300"], "--steps must lie from 10 to 256, the size of this model's J"),
    (["symmetry", "--model", "FOLDER", "--channel", "4"], "--channel 4 is none of the model's: expected 0 to 3"),
    (["audit", "--model", "FOLDER", "--times", "1000"], "outside this schedule"),
    (["audit", "--image", "nowhere.png"], "--image nowhere.png cannot be read"),
    (["audit", "--model", "nobody/nothing"], "`hf download nobody/nothing` fetches it"),
    (["guidance", "--model", "mnist"], "--model mnist takes no prompt, hence no guidance: take mnist-latent"),
    (["guidance", "--model", "FOLDER", "--scales", "1", "1"], "--scales must be one or more different numbers: got 1"),
    (["guidance", "--model", "FOLDER", "--digits", "0"], "--digits must lie from 1 to"),
    (["guidance", "--model", "FOLDER", "--image", "PHOTO"], "has no caption: say with --prompt what it shows"),
])
def test_slips_are_answered_with_a_remedy(monkeypatch, capsys, tmp_path, folder, photo, words, message):
    monkeypatch.chdir(tmp_path)
    places = {"FOLDER": folder, "PHOTO": photo}
    status, _, err = call(monkeypatch, capsys, *(places.get(word, word) for word in words))
    assert status == 2
    assert message in " ".join(err.split())


def test_help_of_guidance_has_a_runnable_example(monkeypatch, capsys):
    status, out, _ = call(monkeypatch, capsys, "guidance", "--help")
    assert status == 0
    assert "Example: jacobian-lab guidance" in " ".join(out.split())
