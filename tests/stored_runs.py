"""Finished runs for the tests of what reads them."""

import json
import warnings

from studies.archive.stored import Stored
from studies.frame.dataset import read_dataset, write_dataset
from studies.frame.study import perform
from studies.sampling.inpaint import STUDY, Inpaint

SCRIPT = "<script>alert('é')</script>"


def inpainted(runs, **options):
    """A small run of `inpaint`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of variables that a study does not describe
        config = Inpaint(digits=1, samples=1, steps=2, newton_steps=1, **options)
        return Stored(perform(STUDY, config, runs).folder)


def hostile(run):
    """Put a script wherever a user's words get into a run."""
    claim = json.loads((run.folder / "config.json").read_text())
    claim |= {"model": "mnist-latent", "prompt": SCRIPT, "negative_prompt": 'it\'s "$1" --x'}
    claim["guidance"] = 2.0
    (run.folder / "config.json").write_text(json.dumps(claim))
    manifest = json.loads((run.folder / "manifest.json").read_text())
    manifest["command"] = f"jacobian-lab inpaint --prompt {SCRIPT}"
    (run.folder / "manifest.json").write_text(json.dumps(manifest))
    data = read_dataset(run.folder)
    data["subject"] = ((), SCRIPT, {"description": SCRIPT, "units": SCRIPT})
    write_dataset(run.folder, data)
    return Stored(run.folder)
