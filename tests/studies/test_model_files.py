import json

import pytest

from jacobian_lab import InputError
from studies.frame.model_files import LATENT, cached_folder, folder_hash, is_gray, pipeline_folder


def test_a_folders_hash_is_that_of_names_and_contents_with_the_endings(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        (folder / "unet").mkdir(parents=True)
        (folder / "unet" / "config.json").write_text("{}")
        (folder / "notes.txt").write_text(folder.name)  # not read by anything
    assert folder_hash(one, (".json",)) == folder_hash(other, (".json",))
    assert folder_hash(one, (".json", ".txt")) != folder_hash(other, (".json", ".txt"))
    (other / "unet").rename(other / "vae")
    assert folder_hash(one, (".json",)) != folder_hash(other, (".json",))


def test_folders_are_taken_as_they_are_and_unknown_names_are_refused_offline(tmp_path):
    pytest.importorskip("huggingface_hub")
    assert pipeline_folder(LATENT).is_dir()
    assert cached_folder(str(tmp_path), "--model x") == tmp_path
    with pytest.raises(InputError, match=r"--model nobody/nothing: there is no such folder"):
        cached_folder("nobody/nothing", "--model nobody/nothing")


def test_a_pipeline_is_gray_if_its_autoencoder_takes_one_channel(tmp_path):
    assert is_gray(LATENT)
    (tmp_path / "vae").mkdir()
    for content, gray in ((json.dumps({"in_channels": 3}), False), ("[" * 10**5, True), ("", True)):
        (tmp_path / "vae" / "config.json").write_text(content)
        assert is_gray(str(tmp_path)) == gray
