"""The folder of a run: nothing of the user's is ever removed, and nothing that other code made is
handed out as new.
"""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest

import mnist
from jacobian_lab import InputError
from mnist import runs
from mnist.recipe import DenoiserRecipe
from mnist.runs import default_folder
from mnist.train import Run, train
from studies.benchmarks import dense, products
from studies.contest import (
    contest,
)
from studies.frame import provenance
from studies.frame.study import Pieces, perform, run
from studies.jacobian import (
    audits,
    eigenvalues,
)
from studies.sampling import (
    inpaint,
)

import mnist_files
from conftest import call, save_small
from squares import FILES, Options, Squares, names


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return mnist_files.write(tmp_path_factory.mktemp("mnist"))


def recipe(folder, out, **options):
    return DenoiserRecipe(
        **{
            "data_folder": folder,
            "out": out,
            "updates": 2,
            "batch_size": 4,
            "checkpoint_every": 1,
            "channels": (32, 32, 32),
        }
        | options
    )


def content(folder):
    """Every file of a folder, with its bytes, and every folder."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def study(during=lambda: None):
    """Return a study that does something while it computes."""
    squares = Squares()
    piece = squares.piece

    def computes(i):
        if i == 1:
            during()
        return piece(i)

    squares.piece = computes
    return squares.study()


def put(path, text="the user's"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


USERS = (
    "thesis.tex",
    "download.partial",
    "data.nc",
    "config.json",
    "piece-0.npz",
    ".lock",
    "figure.png",
    "notes/a.txt",
    "notes.partial/a.txt",
    "figure.partial.png",
    "config.json.partial",
    f".{'0a' * 8}.partial",
)


@pytest.mark.parametrize("name", USERS)
def test_a_folder_that_is_not_empty_is_refused_at_the_start(tmp_path, name, folder):
    put(tmp_path / "run" / name)
    before = content(tmp_path)
    with pytest.raises(
        InputError, match=r"run exists and is not the folder of a run: choose another --out"
    ):
        run(study(lambda: pytest.fail("computed")), Options(out=tmp_path / "run"))
    with pytest.raises(
        InputError, match=r"run exists and is not the folder of a run: choose another --out"
    ):
        train(recipe(folder, tmp_path / "run"))
    assert content(tmp_path) == before


@pytest.mark.parametrize("name", USERS)
def test_a_folder_that_fills_while_the_run_computes_is_refused_at_the_end(tmp_path, name):
    (tmp_path / "run").mkdir()
    with pytest.raises(
        InputError,
        match=r"the run is finished and lies in .*run\.partial, but .*run cannot take its place "
        r"\(Directory not empty\): move away .* the same command puts the run there",
    ):
        run(study(lambda: put(tmp_path / "run" / name)), Options(out=tmp_path / "run"))
    assert (tmp_path / "run" / name).read_text() == "the user's"
    assert set(names(tmp_path / "run.partial")) >= set(FILES)
    shutil.move(tmp_path / "run", tmp_path / "mine")
    outcome = perform(study(lambda: pytest.fail("computed twice")), Options(out=tmp_path / "run"))
    assert outcome.how == "resumed with 3 pieces"
    assert names(tmp_path / "run") == FILES
    assert (tmp_path / "mine" / name).read_text() == "the user's"
    assert names(tmp_path) == ["mine", "run"]


def test_a_file_or_a_link_that_takes_the_folders_name_is_left_alone(tmp_path):
    with pytest.raises(InputError, match="cannot take its place"):
        run(study(lambda: put(tmp_path / "run")), Options(out=tmp_path / "run"))
    assert (tmp_path / "run").read_text() == "the user's"
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(InputError, match="cannot take its place"):
        run(
            study(lambda: (tmp_path / "two").symlink_to(tmp_path / "elsewhere")),
            Options(out=tmp_path / "two"),
        )
    assert (tmp_path / "two").is_symlink()


# which are ours there
@pytest.mark.parametrize("name", sorted({*USERS} - {".lock", f".{'0a' * 8}.partial"}))
def test_the_users_files_in_the_unfinished_folder_are_kept(tmp_path, name):
    put(tmp_path / "run.partial" / name)
    with pytest.raises(InputError, match=r"run\.partial exists and is not the folder of a run"):
        run(study(), Options(out=tmp_path / "run"))
    shutil.rmtree(tmp_path / "run.partial")
    if name not in (*FILES, "piece-0.npz"):  # which the run writes itself
        folder = run(
            study(lambda: put(tmp_path / "run.partial" / name)), Options(out=tmp_path / "run")
        )
        assert (folder / name).read_text() == "the user's"


def test_training_removes_nothing_either(folder, tmp_path, monkeypatch):
    step = Run.step

    def during(self, *args):
        put(tmp_path / "run" / "thesis.tex")
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", during)
        with pytest.raises(InputError, match=r"the run is finished and lies in .*run\.partial"):
            train(recipe(folder, tmp_path / "run"))
    assert names(tmp_path / "run") == ["thesis.tex"]
    shutil.move(tmp_path / "run" / "thesis.tex", tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", lambda *_: pytest.fail("trained twice"))
        path = train(recipe(folder, tmp_path / "run"))
    assert mnist.load_denoiser(path)
    assert names(tmp_path) == ["run", "thesis.tex"]


CHANGES = {
    "a line of a source": {"sources": "f" * 64},
    "our version": {"jacobian-lab": "0.0.9"},
    "torch": {"torch": "2.12.0"},
    "numpy": {"numpy": "1.0"},
    "scipy": {"scipy": None},
    "another library": {"diffusers": "0.1"},
    "several": {"sources": "0" * 64, "torch": "1"},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_run_of_other_code_is_shown_and_computed_anew_beside_it(
    tmp_path, monkeypatch, capsys, change
):
    squares, config = Squares(), Options(out=tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code", lambda *args: runs.code(*args) | CHANGES[change])
        old = run(squares.study(), config)
    before = content(old)
    new = perform(squares.study(), config)
    assert new.how == "computed"
    assert new.folder != old
    assert new.folder.name.startswith("run-")
    key, value = next(iter(CHANGES[change].items()))
    err = capsys.readouterr().err
    assert f"{old} was made by other code (" in err
    assert f"{key} {str(value)[:12]}, now " in err
    assert f"): it stays, and {new.folder} is the folder of this run" in err
    assert content(old) == before
    assert perform(squares.study(), config)[:2] == (
        new.folder,
        "reused: table and figures drawn anew from data.nc",
    )
    assert squares.computed == 2 * [0, 1, 2]
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code", lambda *args: runs.code(*args) | CHANGES[change])
        assert run(squares.study(), config) == old


def test_an_interrupted_run_of_other_code_stays_too(tmp_path, monkeypatch, capsys):
    squares, config = Squares(), Options(out=tmp_path / "run")
    squares.fails_at = 2
    with monkeypatch.context() as patch:
        patch.setattr(provenance, "code", lambda *args: runs.code(*args) | {"sources": "f" * 64})
        with pytest.raises(KeyboardInterrupt):
            run(squares.study(), config)
    before, squares.fails_at, squares.computed = content(tmp_path / "run.partial"), None, []
    outcome = perform(squares.study(), config)
    assert squares.computed == [0, 1, 2]
    assert outcome.how == "computed"
    assert (
        "run.partial was made by other code (sources ffffffffffff, now " in capsys.readouterr().err
    )
    assert content(tmp_path / "run.partial") == before
    assert names(tmp_path) == sorted(["run.partial", outcome.folder.name])


def test_runs_from_before_the_code_was_noted_are_other_codes(tmp_path, capsys):
    folder = run(Squares().study(), Options(out=tmp_path / "run"))
    claim = json.loads((folder / "config.json").read_text())
    del claim["code"]
    (folder / "config.json").write_text(json.dumps(claim))
    assert run(Squares().study(), Options(out=folder)) != folder
    assert "was made by other code (it does not say which)" in capsys.readouterr().err


def test_a_model_that_other_code_trained_is_trained_anew_beside_it(
    folder, tmp_path, monkeypatch, capsys
):
    with monkeypatch.context() as patch:
        patch.setattr("mnist.train.code", lambda *args: runs.code(*args) | {"torch": "2.12.0"})
        old = train(recipe(folder, tmp_path / "run"))
    new = train(recipe(folder, tmp_path / "run"))
    assert new.parent != old.parent
    assert "run was made by other code (torch 2.12.0, now 2." in capsys.readouterr().err
    assert train(recipe(folder, tmp_path / "run")) == new


def test_the_code_is_every_source_that_computes(tmp_path, monkeypatch):
    package = tmp_path / "coded"
    put(package / "__init__.py", "")
    put(package / "inner" / "a.py", "x = 1")
    put(package / "figure_style.py", "colour = 1")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []

    def changed():
        runs._source_hash.cache_clear()
        seen.append(runs.code(("coded",))["sources"])
        return len(seen) == 1 or seen[-1] != seen[-2]

    changed()
    put(package / "inner" / "a.py", "x = 2")
    assert changed()
    put(package / "b.py", "")
    assert changed()
    (package / "b.py").rename(package / "c.py")
    assert changed()
    for name in ("figure_style.py", "data.txt", "__pycache__/a.pyc"):
        put(package / name, "else")
        assert not changed()
    assert runs.code(("coded",), ("no-such-library",))["no-such-library"] is None


def test_default_folders_are_named_by_the_options_alone():
    claims = [
        {"study": "a", "seed": 1, "code": {"sources": "1"}},
        {"study": "a", "seed": 1, "code": {"sources": "2"}},
        {"study": "a", "seed": 2, "code": {"sources": "1"}},
    ]
    one, two, three = (default_folder("a", claim) for claim in claims)
    assert one == two != three


def test_the_contents_of_the_users_files_are_part_of_a_run(tmp_path):
    from PIL import Image

    model, path, image = (
        save_small(tmp_path / "model", "v"),
        tmp_path / "image.png",
        np.zeros((32, 32), np.uint8),
    )
    for study, option in (
        (eigenvalues.STUDY, {"images": (path,)}),
        (inpaint.STUDY, {"mask": str(path)}),
        (inpaint.STUDY, {"images": (path,)}),
    ):
        claims = []
        for value in (150, 250, 150):
            image[8:24, 12:20] = value
            Image.fromarray(image).save(path)
            claims.append(provenance.claim_of(study, study.config(model=model, **option)))
        assert claims[0] == claims[2] != claims[1]


def test_what_became_of_a_command_is_its_last_line(monkeypatch, capsys, tmp_path, folder):
    words = [
        "train",
        "denoiser",
        "--data-folder",
        folder,
        "--out",
        tmp_path / "run",
        "--updates",
        "2",
        "--batch-size",
        "4",
        "--checkpoint-every",
        "1",
        "--channels",
        "32",
        "32",
        "32",
    ]
    step = Run.step

    def interrupted(self, at, *args):
        if at < 1:
            return step(self, at, *args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "step", interrupted)
        status, _, err = call(monkeypatch, capsys, *words)
    assert status == 130
    assert err.endswith("\ninterrupted: the same command goes on where this one stopped\n")
    for how in ("resumed at step 1", "reused"):
        status, out, _ = call(monkeypatch, capsys, *words)
        assert status == 0
        assert out.splitlines()[-1] == how


@pytest.mark.parametrize("words", [["audit"], ["benchmark", "products"], ["benchmark", "dense"]])
def test_ctrl_c_promises_no_resumption_where_there_is_none(monkeypatch, capsys, tmp_path, words):
    def stops(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(audits, "report", stops)
    for module, name in ((products, "PRODUCTS"), (dense, "DENSE")):
        study = getattr(module, name)
        monkeypatch.setattr(module, name, dataclasses.replace(study, compute=stops))
    monkeypatch.chdir(tmp_path)
    status, _, err = call(monkeypatch, capsys, *words)
    assert status == 130
    assert err == "\ninterrupted\n"


@pytest.mark.parametrize(
    "wrong",
    [
        {"learning_rate": 1e12, "warmup": 1, "updates": 50},
        {"data_folder": "/nowhere"},
        {"learning_rate": 1e12, "warmup": 1, "updates": 50, "checkpoint_every": 50},
    ],
)
def test_a_training_that_fails_does_not_block_its_correction(folder, tmp_path, wrong):
    with pytest.raises(InputError, match=r"loss is (nan|inf) at step|MNIST was not found"):
        train(recipe(folder, tmp_path / "run", **wrong))
    assert not names(tmp_path)
    assert mnist.load_denoiser(train(recipe(folder, tmp_path / "run")))


def test_a_study_that_is_refused_does_not_block_its_correction_but_keeps_what_was_computed(
    tmp_path,
):
    squares = Squares()
    squares.fails_at, squares.error = 0, InputError("no")
    with pytest.raises(InputError, match="no"):
        run(squares.study(), Options(out=tmp_path / "run", count=4))
    squares.fails_at = None
    assert names(run(squares.study(), Options(out=tmp_path / "run"))) == FILES


@pytest.mark.parametrize("written", range(1, 11))
def test_a_full_disk_names_path_and_remedy_and_the_run_goes_on_afterwards(
    tmp_path, monkeypatch, written
):
    calls, fsync = [], os.fsync

    def full(file):
        calls.append(0)
        if len(calls) == written:
            raise OSError(28, os.strerror(28))
        fsync(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(
            InputError,
            match=r"cannot write to .*run\.partial/\w+\S*: No space left on device\. Free some",
        ):
            run(Squares().study(), Options(out=tmp_path / "run"))
    squares = Squares()
    found = perform(squares.study(), Options(out=tmp_path / "run"))
    assert names(found.folder) == FILES
    assert len(squares.computed) == max(0, 3 - max(0, written - 2))


def test_leftovers_of_a_kill_are_cleared_by_the_next_run(tmp_path):
    squares = Squares()
    squares.fails_at = 2
    with pytest.raises(KeyboardInterrupt):
        run(squares.study(), Options(out=tmp_path / "run"))
    put(tmp_path / "run.partial" / f".{'0a' * 8}.partial")
    put(tmp_path / "run.partial" / "download.partial")
    squares.fails_at = None
    assert names(run(squares.study(), Options(out=tmp_path / "run"))) == sorted(
        [*FILES, "download.partial"]
    )


def test_pieces_count_what_they_found(tmp_path):
    first, second = Pieces(tmp_path), Pieces(tmp_path)
    for pieces in (first, second):
        pieces("a", lambda: {"x": np.zeros(1)})
    assert (first.found, second.found) == (0, 1)


def test_libraries_that_compute_are_part_of_the_code():
    assert provenance.claim_of(contest.STUDY, contest.Contest())["code"].keys() == {
        "sources",
        "jacobian-lab",
        "torch",
        "numpy",
        "scipy",
        "azula",
        "deepinv",
    }
    latent = eigenvalues.STUDY.config(model="mnist-latent")
    assert provenance.claim_of(eigenvalues.STUDY, latent)["code"].keys() >= {
        "diffusers",
        "transformers",
    }
