"""Each kind of file that is read back, damaged 38 ways where it lies: noticed, or shown to be
harmless.
"""

import dataclasses
import json
import resource
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import Arnoldi, InputError, arnoldi
from jacobian_lab._files import write_archive
from mnist.recipe import DenoiserRecipe
from mnist.runs import run_folder
from mnist.train import Run
from mnist.weights import read_card
from studies.frame import provenance
from studies.frame.study import Pieces, perform, run

import mnist_files
from conftest import save_small, stored
from damage import damaged, unnoticed
from squares import Options, Squares


def squares_of(folder):
    data = stored(folder)
    return data["squares"].tolist()


def test_of_a_finished_run(tmp_path):
    study, config = Squares().study(), Options(out=tmp_path / "run")
    folder, claim = run(study, config), provenance.claim_of(study, config)
    path, truth = folder / "config.json", json.loads((folder / "config.json").read_text())
    assert not unnoticed(
        folder / "data.nc", lambda: run(study, config), "Remove the folder .* and run again"
    )

    def reuse():
        with run_folder(folder, "config.json", claim) as place:
            assert place.folder != folder, "an old run is handed out"
            raise InputError("computed anew")

    for damage in unnoticed(path, reuse, f"{folder} (exists and is not|holds)", 300):
        assert damage.startswith("a bit of byte"), damage
    for _ in damaged(path, 300):
        with suppress(InputError, ValueError, TypeError):
            found = dict(json.loads(path.read_text()))
            reuse()
            # all but the note of the code is as it was, and the run is computed anew
            assert found | truth == truth | found
    assert squares_of(folder) == [0, 1, 4]


def test_of_a_piece_which_is_computed_again(tmp_path):
    squares = Squares()
    truth = squares.piece(3)
    Pieces(tmp_path)("piece", lambda: truth)
    for damage in damaged(tmp_path / "piece.npz"):
        pieces, path = Pieces(tmp_path), tmp_path / "piece.npz"
        before, squares.computed = path.read_bytes(), []
        assert pieces("piece", lambda: squares.piece(3)) == truth, damage
        assert squares.computed == [3], damage
        assert pieces.found == 0
        assert path.read_bytes() != before
    assert Pieces(tmp_path)("piece", lambda: pytest.fail("computed twice")) == truth


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mnist_files.write(tmp_path_factory.mktemp("mnist"))


def test_of_a_checkpoint(tmp_path):
    checkpoint, network = tmp_path / "checkpoint.pt", torch.nn.Linear(8, 8)
    state = Run(
        DenoiserRecipe(updates=3),
        network,
        lambda net, images, _: net(images).square().mean(),
        checkpoint,
    )
    state.step(0, torch.randn(2, 8), torch.zeros(2))
    state.losses = torch.rand(1)
    state.save()
    told = f"{checkpoint} is damaged.*Remove it, and the same command trains from the start"
    assert not unnoticed(checkpoint, lambda: state.load(checkpoint), told, 300)
    before = network.weight.clone()
    torch.nn.init.zeros_(network.weight)
    state.load(checkpoint)
    assert torch.equal(network.weight, before)
    torch.save({"network": network.state_dict()}, checkpoint)
    with pytest.raises(InputError, match="is damaged, or this version did not write it"):
        state.load(checkpoint)
    for content in ({"network": {}}, {"network": network.state_dict()}, [1], "text", Path("code")):
        write_archive(checkpoint, lambda file, content=content: torch.save(content, file))
        with pytest.raises(InputError, match=r"is no checkpoint of this run"):
            state.load(checkpoint)


def test_of_an_arnoldi_factorisation(tmp_path):
    A = np.random.default_rng(0).standard_normal((12, 12))
    path = tmp_path / "a.npz"
    for steps in (0, 5, 11, 12):
        arnoldi(A, steps).save(path)
        assert not unnoticed(path, lambda: Arnoldi.load(path, A), f"{path} is damaged.* start anew")
        assert Arnoldi.load(path, A).steps == steps


def test_of_weights_and_their_card(tmp_path):
    path = tmp_path / "denoiser"
    save_small(path, "flow")
    assert not unnoticed(path.with_suffix(".safetensors"), lambda: mnist.load_denoiser(path))
    truth = read_card(path, "denoiser")
    for _ in damaged(path.with_suffix(".json"), 300):
        with suppress(InputError):
            assert read_card(path, "denoiser") == truth  # such as 1E-05 for 1e-05


@pytest.mark.parametrize("name", ["classifier", "denoiser"])
def test_of_shipped_weights(name, tmp_path):
    for ending in ("json", "safetensors"):
        shutil.copy(mnist.weights.SHIPPED / f"{name}.{ending}", tmp_path)
    load = mnist.load_classifier if name == "classifier" else mnist.load_denoiser
    load(tmp_path / name)
    for ending in ("json", "safetensors"):
        assert not unnoticed(tmp_path / f"{name}.{ending}", lambda: load(tmp_path / name))


def test_of_mnist(folder, tmp_path):
    copied = shutil.copytree(folder, tmp_path / "mnist")
    truth = mnist.digits("test", copied)
    for name in ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"):
        path = copied / "MNIST" / "raw" / name
        assert not unnoticed(
            path,
            lambda: mnist.digits("test", copied),
            f"{path} is damaged, or not MNIST's.*fetch it again",
        )
    sums = copied / "MNIST" / "raw" / "SHA256SUMS"
    for _ in unnoticed(sums, lambda: mnist.digits("test", copied), "is damaged, or not MNIST's"):
        # in a line of the training set's
        assert all(map(torch.equal, truth, mnist.digits("test", copied)))
    sums.unlink()
    with pytest.raises(
        InputError, match=r"expected 0fa7898d5.*if the data are your own, note them in .*SHA256SUMS"
    ):
        mnist.digits("test", copied)


def test_of_the_miniature_that_ships(tmp_path):
    pytest.importorskip("diffusers")
    from jacobian_lab.diffusion.adapters.pipelines import open_pipeline
    from mnist.latent import PIPELINE

    copied = shutil.copytree(PIPELINE, tmp_path / "mini")
    open_pipeline(copied, None, None, False)
    for path in copied.rglob("*"):
        if path.is_file():
            assert not unnoticed(
                path,
                lambda: open_pipeline(copied, None, None, False),
                f"{copied}.*(is damaged|is missing)",
            )


def test_other_weights_are_other_runs_even_under_a_card_of_the_same_hash(tmp_path):
    path = tmp_path / "denoiser"
    save_small(path, "v")
    study = dataclasses.replace(Squares().study(), models=lambda config: {str(path): "denoiser"})
    run(study, Options(out=tmp_path / "run"))
    card = read_card(path, "denoiser")
    mnist.weights.write_card(path, card | {"scores": {"any": 1}})
    assert perform(study, Options(out=tmp_path / "run")).how.startswith("reused")
    mnist.weights.write_card(path, card | {"prediction": "epsilon"})
    with pytest.raises(InputError, match="other options: weights"):
        run(study, Options(out=tmp_path / "run"))


@pytest.mark.parametrize("limit", [0, 1, 1000, 9000, 15_000])
def test_a_disk_that_fills_in_the_middle_of_a_file_is_told_by_all(tmp_path, limit):
    """With a limit on the size of files, which fails as a full disk does, at any byte."""
    rng, checkpoint = np.random.default_rng(0), tmp_path / "checkpoint.pt"
    state = Run(DenoiserRecipe(updates=3), torch.nn.Linear(64, 64), lambda *_: None, checkpoint)
    factorisation = arnoldi(rng.standard_normal((90, 90)), 40)
    writes = {
        "checkpoint.pt": state.save,
        "a.npz": lambda: factorisation.save(tmp_path / "a.npz"),
        "piece.npz": lambda: Pieces(tmp_path)("piece", lambda: {"x": rng.standard_normal(9000)}),
        "denoiser.safetensors": lambda: mnist.weights.save_model(
            tmp_path / "denoiser", torch.nn.Linear(100, 100), {}
        ),
    }
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        for name, write in writes.items():
            with pytest.raises(
                InputError, match=f"cannot write to {tmp_path / name}: File too large"
            ):
                write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())
    for write in writes.values():
        write()
    assert {path.name for path in tmp_path.iterdir()} == {*writes, "denoiser.json"}
