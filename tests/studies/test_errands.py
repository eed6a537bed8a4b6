"""What a worker does: by the command's code and models, in its folder, by its number of threads."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from jacobian_lab import InputError
from mnist.runs import code
from studies.frame import errands, models
from studies.frame.errands import Errand, run_errand, threads
from studies.frame.models import open_model
from studies.frame.provenance import MADE, PACKAGES
from studies.frame.user_models import first, made_hash

MODEL = """
import torch
from jacobian_lab import Denoiser, DiscreteSchedule

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(SCALE))

    def forward(self, x, t):
        return self.scale * x

def make():
    return Denoiser(Net(), DiscreteSchedule.linear(), "epsilon", (1, 2, 2))
"""


def where(*given):
    return {"threads": np.array(torch.get_num_threads()), "folder": Path.cwd(), "given": given}


def scale(model):
    return float(model.denoiser.network.scale.detach())


def errand(function, needs="", folder="/"):
    return Errand(needs, str(folder), 1, pickle.dumps(function))


def test_a_piece_is_computed_in_the_commands_folder_by_its_threads(tmp_path):
    before = torch.get_num_threads(), Path.cwd()
    with threads(2):
        assert torch.get_num_threads() == 2
        found = run_errand(errand(where, folder=tmp_path), pickle.dumps((1, 2)))
    assert (found["threads"], found["folder"], found["given"]) == (1, tmp_path, (1, 2))
    assert (
        run_errand(errand(where, folder=tmp_path / "no"), pickle.dumps(()))["folder"] == before[1]
    )
    assert (torch.get_num_threads(), Path.cwd()) == before


@pytest.mark.parametrize("part", ["sources", "torch", "numpy"])
def test_other_code_or_versions_are_refused(part):
    mine = code(PACKAGES)
    run_errand(errand(where, json.dumps([mine, {}, {}])), pickle.dumps(()))
    with pytest.raises(InputError, match=rf"has other code than the command \({part} .*install"):
        run_errand(errand(where, json.dumps([mine | {part: "0"}, {}, {}])), pickle.dumps(()))


def test_a_model_that_was_changed_is_refused_or_opened_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, name = tmp_path / "net.py", "net.py:make"

    def sent():
        """What a command sends that begins now: its model is opened where it arrives."""
        first.cache_clear()
        needs = json.dumps([code(PACKAGES), {name: made_hash(name)}, {name: MADE}])
        model = pickle.dumps((open_model(name, "cpu"),))
        assert len(model) < 500  # no weights
        return errand(scale, needs, tmp_path), model

    path.write_text(MODEL.replace("SCALE", "2.0"))
    early = sent()
    assert run_errand(*early) == 2
    path.write_text(MODEL.replace("SCALE", "3.0"))
    late = sent()
    assert run_errand(*late) == 3  # a worker that lives on opens it anew
    assert run_errand(*early) == 2  # and still has the other for the other command
    for cache in (first, errands._check, models._reopened):
        cache.cache_clear()  # another worker
    with pytest.raises(InputError, match=r"finds another net\.py:make than the command"):
        run_errand(*early)
