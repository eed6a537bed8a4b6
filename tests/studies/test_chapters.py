import csv
import dataclasses
import json
import shlex

import numpy as np
import pytest

from jacobian_lab import InputError
from studies.archive.chapters import chapter_of, said
from studies.archive.stored import Stored
from studies.cli import named, parsed
from studies.frame.dataset import read_dataset, write_dataset

from stored_runs import hostile, inpainted


@pytest.fixture
def run(tmp_path):
    return inpainted(tmp_path, seed=3)


def test_a_chapter_holds_what_the_files_of_the_run_hold(run):
    chapter = chapter_of(run, "run-1")
    with (run.folder / "table.csv").open() as file:
        names, *cells = csv.reader(file)
    assert (chapter.whole.names, chapter.whole.cells) == (names, cells)
    manifest = json.loads((run.folder / "manifest.json").read_text())
    told = dict(chapter.provenance.cells)
    assert told["git commit"] == manifest["git"]["commit"]
    assert told["weights denoiser sha256"] == manifest["weights"]["denoiser"]["sha256"]
    assert told["versions torch"] == manifest["versions"]["torch"]
    assert {line[0]: line[1:3] for line in chapter.chosen.cells} == {
        "--seed": ["3", "0"],
        "--digits": ["1", "24"],
        "--samples": ["1", "3"],
        "--steps": ["2", "20"],
        "--newton-steps": ["1", "5"],
    }
    assert len(chapter.chosen.cells) + len(chapter.others.cells) == len(run.options())
    assert [line[0] for line in chapter.variables.cells] == list(run.arrays())
    assert 'id="run-1-figure_1"' in chapter.figure


def test_the_command_that_repeats_a_run_means_the_same_options(run):
    run = hostile(run)  # with quotes, dollars and spaces
    name, command, words = named(shlex.split(chapter_of(run, "run-1").repeat)[1:])
    options = dataclasses.asdict(parsed(command, name, words))
    options = {key: options[key] for key in run.options()}
    assert json.loads(json.dumps(options, default=str)) == run.options()


@pytest.mark.parametrize(
    ("value", "text"), [(None, "none"), (True, "yes"), ((1, 2.5), "1, 2.5"), ("", ""), (0, "0")]
)
def test_values_in_words(value, text):
    assert said(value) == text


def test_what_cannot_be_drawn_is_refused_with_the_remedy(run, tmp_path):
    write_dataset(run.folder, read_dataset(run.folder).drop_vars("images"))
    with pytest.raises(InputError, match=r"lacks 'images'.*manifest\.json computes it anew"):
        chapter_of(run, "run-1")
    (run.folder / "data.nc").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"data\.nc is damaged"):
        chapter_of(run, "run-1")
    (run.folder / "data.nc").unlink()
    np.savez(run.folder / "data.npz", images=np.zeros(1))
    with pytest.raises(InputError, match="written before runs were labelled"):
        chapter_of(run, "run-1")
    claim = json.loads((run.folder / "config.json").read_text()) | {"study": "outpaint"}
    (run.folder / "config.json").write_text(json.dumps(claim))
    with pytest.raises(InputError, match="'outpaint', which this version does not have"):
        chapter_of(Stored(run.folder), "run-1")
