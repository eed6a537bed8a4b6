"""A model of the user's, `--model file.py:make`, in the studies that ask no judge."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from jacobian_lab import InputError
from studies.frame.models import open_model
from studies.frame.options import OnModel
from studies.frame.survey import Survey
from studies.frame.user_models import NEIGHBOURS, first, is_users, made_hash, make

import tiny_model
from conftest import call

MODEL = '''
import torch
from jacobian_lab import *

def field(shape, schedule, scale=1.0, dtype=torch.float32):
    """A Gaussian of smooth images in each channel."""
    c, h, w = shape
    rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    at = torch.stack([rows.flatten(), columns.flatten()], 1).double()
    one = 0.3 * scale * torch.exp(-torch.cdist(at, at) ** 2 / 8)
    covariance = torch.kron(torch.eye(c).double(), one + 0.02 * torch.eye(h * w))
    return gaussian(torch.zeros(c * h * w).to(dtype), covariance.to(dtype), schedule, shape)

def colour():
    return field((3, 8, 8), DiscreteSchedule.linear()).denoiser("epsilon")

def flow():
    return field((3, 8, 8), RectifiedFlow()).denoiser("flow")

def exploding():
    return field((1, 8, 8), VarianceExploding(50)).denoiser("score")

def short():
    return field((1, 8, 8), DiscreteSchedule.linear(100, 1e-3, 0.2)).denoiser("v")

def double():
    return field((1, 8, 8), DiscreteSchedule.linear(), dtype=torch.float64).denoiser("v")

def vector():
    g = torch.Generator().manual_seed(0)
    A = torch.randn(9, 9, generator=g)
    return gaussian(torch.zeros(9), A @ A.T / 9, RectifiedFlow(), (9,)).denoiser("sample")

class Halves:
    def __init__(self):
        self.denoiser = field((3, 4, 4), DiscreteSchedule.linear()).denoiser("v")
        self.image_shape = (3, 8, 8)
    def encode(self, images):
        return torch.nn.functional.avg_pool2d(images, 2) * 2
    def decode(self, latents):
        return torch.nn.functional.interpolate(latents / 2, scale_factor=2.0)

def latent():
    return Halves()

def digits():
    denoiser = field((1, 32, 32), DiscreteSchedule.linear()).denoiser("v")
    denoiser.digits = True
    return denoiser

def broken():
    return 1 / 0

def other():
    return torch.nn.Identity()

constant = 3
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mine")
    (folder / "models.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    for k, ending in enumerate(("png", "jpg")):
        pixels = rng.integers(0, 255, (5, 6, 3)).astype(np.uint8)
        Image.fromarray(pixels).resize((40, 30)).save(folder / f"photo {k}.{ending}")
    (folder / "arrays").mkdir()
    np.save(folder / "arrays" / "vectors.npy", rng.standard_normal((2, 9)).astype(np.float32))
    return folder


@pytest.fixture
def named(place):
    return lambda function: f"{place}/models.py:{function}"


STUDIES = {
    "eigenvalues": ("--times", "300", "700", "--seeds", "1"),
    "spectrum": ("--time", "500", "--arnoldi-steps", "10"),
    "eigenvectors": ("--time", "500", "--k", "2"),
    "symmetry": ("--times", "300", "700", "--shown", "500"),
    "directions": ("--times", "500", "--pixel", "3", "4"),
    "convergence": ("--steps", "4", "--points", "2", "--jacobians", "1", "--newton-steps", "1"),
    "inpaint": ("--samples", "1", "--steps", "5", "--newton-steps", "2"),
    "superres": ("--samples", "1", "--steps", "5", "--factor", "2"),
    "accuracy": ("--times", "500", "--vectors", "2", "--pairs", "3"),
    "evaluate": ("--times", "300", "700", "--steps", "3", "--jacobians", "2"),
}
ONE = ("spectrum", "eigenvectors", "accuracy")
"""Studies of one image."""


@pytest.mark.parametrize("study", STUDIES)
def test_every_study_that_needs_no_judge_runs_on_colour_images_of_the_users(
    run, place, named, study
):
    photos = (
        [place / "photo 0.png"] if study in ONE else [place / "photo 0.png", place / "photo 1.jpg"]
    )
    words = ("--model", named("colour"), "--images", *photos, *STUDIES[study])
    data, rows, manifest = run(study, *words)
    assert rows
    assert named("colour") in str(data["subject"])
    assert manifest["weights"].keys() == {named("colour")}
    assert manifest["weights"][named("colour")].keys() == {"source", "levels", "weights"}
    if study == "inpaint":
        assert data["images"].shape == (3, 2, 1, 3, 8, 8)
        assert "agreement" not in rows[0]
        found = {row["method"]: float(row["rmse_of_the_observed_mean"]) for row in rows}
        assert found["projected"] < 1e-6 < found["sampled"] < 0.7 * found["unconstrained"]
    if study == "symmetry":
        assert data["value"].max() < 1e-4  # J of a Gaussian
    if study == "eigenvalues":
        np.testing.assert_allclose(data["truth"], data["largest"][:, 0], rtol=1e-4, atol=1e-5)


def test_audit_runs_on_a_model_of_the_users(monkeypatch, capsys, place, named):
    words = ("audit", "--model", named("colour"), "--images", place / "photo 0.png")
    status, out, err = call(monkeypatch, capsys, *words, "--times", "500")
    assert status == 0, out + err
    assert "photo 0.png, t = 500" in out


def test_a_model_of_latents_is_encoded_and_decoded(run, place, named):
    words = ("--model", named("latent"), "--images", place, "--through", "tangent")
    data, rows, _ = run("inpaint", *words, "--samples", "1", "--steps", "5")
    assert data["images"].shape == (4, 2, 1, 3, 8, 8)
    assert rows[-1]["method"] == "autoencoder"


def test_samples_that_are_no_images_have_spectra(run, monkeypatch, capsys, place, named):
    words = ("--model", named("vector"), "--images", place / "arrays")
    data, _, _ = run("eigenvalues", *words, "--times", "0.5", "--seeds", "1")
    assert data["largest"].shape == (1, 2, 3)
    np.testing.assert_allclose(data["truth"], data["largest"][:, 0], rtol=1e-4, atol=1e-5)
    data, _, _ = run("evaluate", *words, "--times", "0.5", "--steps", "3", out="evaluated")
    assert data["grid"].shape[1:] == (9,)
    for study in ("inpaint", "eigenvectors"):
        status, _, err = call(monkeypatch, capsys, study, *words)
        assert status == 2
        assert "is of samples of shape (9,): this study is of images" in err


def test_default_times_follow_the_schedule(named, capsys):
    assert Survey(model=named("flow")).times == tuple(k / 10 for k in range(1, 10))
    assert "counts from 0 to 1: the default times are scaled to it" in capsys.readouterr().err
    assert Survey(model=named("short")).times == tuple(range(10, 100, 10))
    sigmas = Survey(model=named("exploding")).times
    assert sigmas[0] == pytest.approx(0.347, abs=0.01)  # DDPM's at t = 100
    assert sigmas[-1] == 50
    assert Survey(model=named("colour")).times == Survey.times
    assert Survey(model=named("flow"), times=(0.25,)).times == (0.25,)


def test_a_model_keeps_its_precision_and_has_a_double(named):
    assert open_model(named("double"), "cpu").dtype == torch.float64
    single = open_model(named("colour"), "cpu")
    double = open_model(named("colour"), "cpu", torch.float64)
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(
        double.denoiser(x.double(), 500).float(), single.denoiser(x, 500), atol=1e-4, rtol=0
    )


def test_digits_are_a_flag_and_no_shape(run, monkeypatch, capsys, named, place):
    assert open_model(named("digits"), "cpu").digits
    assert not open_model(named("colour"), "cpu").digits
    assert OnModel(model=named("digits")).inputs(open_model(named("digits"), "cpu")).names == [
        "digit 0"
    ]
    status, _, err = call(monkeypatch, capsys, "eigenvalues", "--model", named("colour"))
    assert status == 2
    assert "is not of our digits, but of samples of 3x8x8: name yours with --images" in err


def test_an_edited_model_or_image_is_another_run(tmp_path):
    file = tmp_path / "edited.py"
    file.write_text(MODEL)
    name = f"{file}:colour"
    before = made_hash(name)
    file.write_text(MODEL.replace("scale=1.0", "scale=2.0"))
    first.cache_clear()
    after = made_hash(name)
    assert before["source"] != after["source"]
    assert before["weights"] != after["weights"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("models.py:nothing", "has no function 'nothing'; it has"),
        ("models.py:constant", "constant is a int, no function"),
        ("models.py:broken", "raised ZeroDivisionError: division by zero"),
        ("models.py:other", "returned a Identity: expected a jacobian_lab.Denoiser, an object"),
        ("models.py:other", "what load takes (no adapter recognises Identity() (Identity))"),
        ("none.py:make", "there is no file"),
        ("syntax.py:make", "cannot be imported: SyntaxError"),
        ("needs.py:make", "cannot be imported: No module named 'not_there'"),
    ],
)
def test_what_makes_no_model_is_told_in_one_line(place, monkeypatch, capsys, name, told):
    (place / "syntax.py").write_text("def make(:")
    (place / "needs.py").write_text("import not_there")
    status, _, err = call(monkeypatch, capsys, "audit", "--model", f"{place}/{name}")
    assert status == 2
    assert told in err
    assert err.count("\n") == 1


def test_a_module_is_named_as_python_names_it(place, monkeypatch):
    monkeypatch.syspath_prepend(place)
    assert is_users("models:colour")
    assert make("models:colour").shape == (3, 8, 8)
    assert set(made_hash("models:colour")) == {"source", "levels", "weights"}
    sys.modules.pop("models")
    with pytest.raises(InputError, match=r"no module 'nowhere'; a file is named with its ending"):
        make("nowhere:make")


NETWORK = "GAIN = {gain}\ndef network(x, t):\n    return GAIN * x\n"
BESIDE = """
import json
from pathlib import Path

from beside_a_model import network
from jacobian_lab import Denoiser, DiscreteSchedule


def make():
    end = json.loads((Path(__file__).parent / "end.json").read_text())
    return Denoiser(network, DiscreteSchedule.linear(1000, 1e-4, end), "sample", (1, 8, 8))
"""


def beside(folder, gain):
    """The name of a model whose network lies in a file beside it."""
    folder.mkdir(exist_ok=True)
    (folder / "beside_a_model.py").write_text(NETWORK.format(gain=gain))
    (folder / "end.json").write_text("0.02")
    (folder / "model.py").write_text(BESIDE)
    return f"{folder}/model.py:make"


def test_what_a_model_imports_and_its_noise_levels_belong_to_what_it_is(tmp_path):
    name, hashes = beside(tmp_path, 1.0), []
    for change in (
        lambda: None,
        lambda: beside(tmp_path, 3.0),
        lambda: (tmp_path / "end.json").write_text("0.03"),
        lambda: (tmp_path / "unrelated.py").write_text("x = 1"),
    ):
        change()
        first.cache_clear()
        hashes.append(made_hash(name))
    assert hashes[0]["source"] != hashes[1]["source"]
    assert hashes[1]["levels"] != hashes[2]["levels"]
    assert hashes[2] == hashes[3]


def test_files_of_one_name_beside_two_models_are_each_models_own(tmp_path):
    names = [beside(tmp_path / folder, gain) for folder, gain in (("a", 1.0), ("b", 3.0))]
    x = torch.ones(1, 1, 8, 8)
    made = [make(name) for name in (*names, names[0])]
    assert [float(D(x, 500).mean()) for D in made] == [1.0, 3.0, 1.0]


def in_a_folder(folder, gain):
    """The name of a model whose network lies in a folder beside it, without `__init__.py`."""
    (folder / "nets").mkdir(parents=True, exist_ok=True)
    (folder / "nets" / "beside_a_model.py").write_text(NETWORK.format(gain=gain))
    (folder / "end.json").write_text("0.02")
    text = BESIDE.replace("from beside_a_model import network", "from nets import beside_a_model")
    (folder / "model.py").write_text(text.replace("(network,", "(beside_a_model.network,"))
    return f"{folder}/model.py:make"


def test_a_folder_beside_a_model_needs_no_init(tmp_path):
    a, b = (in_a_folder(tmp_path / place, gain) for place, gain in (("a", 1.0), ("b", 3.0)))
    assert made_hash(a)["source"] != made_hash(b)["source"]
    x = torch.ones(1, 1, 8, 8)
    assert [float(make(name)(x, 500).mean()) for name in (a, b, a)] == [1.0, 3.0, 1.0]
    before = made_hash(a)
    in_a_folder(tmp_path / "a", 2.0)
    first.cache_clear()
    assert made_hash(a)["source"] != before["source"]


def test_what_was_loaded_before_a_model_is_no_neighbour_of_it(tmp_path):
    """Such as our own packages, and an environment below the folder of a model."""
    make(f"{tiny_model.__file__}:make")  # beside this suite's own modules
    assert "conftest" in sys.modules
    assert not {"conftest", "tiny_model"} & NEIGHBOURS.keys()
    (tmp_path / "conftest.py").write_text("")
    make(beside(tmp_path, 1.0))
    assert "beside_a_model" in NEIGHBOURS
    assert "conftest" in sys.modules


def test_weights_that_differ_from_call_to_call_are_refused(tmp_path):
    file = tmp_path / "unseeded.py"
    file.write_text(
        "import torch\nfrom jacobian_lab import *\n"
        "def make():\n"
        "    net = torch.nn.Conv2d(1, 1, 1)\n"
        "    schedule = DiscreteSchedule.linear()\n"
        "    return Denoiser(Timeless(net), schedule, 'v', (1, 8, 8))\n"
        "class Timeless(torch.nn.Module):\n"
        "    def __init__(self, net):\n"
        "        super().__init__()\n"
        "        self.net = net\n"
        "    def forward(self, x, t):\n"
        "        return self.net(x)\n"
    )
    with pytest.raises(InputError, match="makes other weights at each call"):
        open_model(f"{file}:make", "cpu")
