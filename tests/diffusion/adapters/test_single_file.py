"""One file of weights: safetensors with a configuration; pickles are refused by name."""

import pytest

from jacobian_lab import InputError, load


@pytest.mark.parametrize("name", ["model.ckpt", "a/b.pt", "net.PTH", "diffusion.bin", "x.pkl"])
def test_a_pickle_is_refused_with_the_safe_way_out(name, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"is a pickle, which can run code.*weights_only=True"):
        load(str(tmp_path / name), config=tmp_path)


def test_a_file_that_is_missing_or_without_its_configuration_is_told(tmp_path):
    with pytest.raises(InputError, match="there is no file"):
        load(tmp_path / "model.safetensors", config=tmp_path)
    with pytest.raises(InputError, match="the family 'file' needs the option config"):
        load("model.safetensors")
