import pytest

from jacobian_lab import InputError, _require
from mnist import latent

diffusers = pytest.importorskip("diffusers")


def test_words_of_captions_are_tokens_and_others_are_spelled():
    tokens = latent.tokens([latent.caption(7), latent.caption(9), "", "SEVEN", "oven"])
    tokenizer = latent.build_tokenizer()
    assert tokens.shape == (5, latent.TOKENS)
    assert tokenizer.convert_ids_to_tokens(tokens[0]) == [
        "<|startoftext|>",
        "a</w>",
        "photo</w>",
        "of</w>",
        "a</w>",
        "seven</w>",
        "<|endoftext|>",
        "<|endoftext|>",
    ]
    assert (tokens[0] != tokens[1]).sum() == 1  # the digit's name
    assert tokens[2].tolist() == [tokenizer.bos_token_id] + 7 * [tokenizer.eos_token_id]
    assert tokenizer.convert_ids_to_tokens(tokens[3])[1] == "seven</w>"
    spelled = tokenizer.convert_ids_to_tokens(tokens[4])[1:]
    assert "".join(spelled).startswith("oven</w><|endoftext|>")
    assert len(
        latent.tokens(
            [template.format(name) for template in latent.TEMPLATES for name in latent.NAMES]
        ).unique(dim=0)
    ) == len(latent.TEMPLATES) * len(latent.NAMES)


def test_a_missing_extra_is_named(monkeypatch):
    monkeypatch.setattr(
        _require,
        "import_module",
        lambda name: (_ for _ in ()).throw(ImportError(f"No module named {name!r}")),
    )
    with pytest.raises(InputError, match="need transformers, which is not installed"):
        latent.build_tokenizer()
