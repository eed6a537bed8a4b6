"""A prompt that a pipeline does not read as it is written is told, and so is guidance that has
nothing to guide by.
"""

import warnings

import pytest

from jacobian_lab import InputError

import pipelines
from conftest import call

pytest.importorskip("diffusers")
from jacobian_lab import load_latent
from jacobian_lab.diffusion.adapters.prompts import _unread


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Pipelines with the miniature's tokenizer, of whole words; with CLIP's of letters; and with
    T5's of letters beside two.
    """
    folder = pipelines.miniature(tmp_path_factory.mktemp("pipelines") / "narrow")
    return {
        "mini": load_latent(folder).pipeline,
        "sd": pipelines.stable_diffusion(),
        "sd3": pipelines.stable_diffusion_3(),
    }


KNOWN = [
    ("mini", "a photo of a seven"),
    ("mini", "A Photo of a SEVEN"),
    ("mini", "a  photo\tof a seven"),
    ("mini", "nine"),
    ("mini", "a handwritten three"),
    ("mini", ""),
    ("mini", "a photo of the digit two"),
    ("sd", "a cat"),
    ("sd", "Cat"),
    ("sd", "xyz"),
    ("sd3", "a cat"),
    ("sd3", ""),
]


@pytest.mark.parametrize(("kind", "prompt"), KNOWN)
def test_a_prompt_that_is_read_as_it_stands_is_taken_in_silence(loaded, kind, prompt):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_latent(loaded[kind], prompt=prompt)


UNKNOWN = [
    ("mini", "a 7", "'7'"),
    ("mini", "7", "'7'"),
    ("mini", "a cat", "'cat'"),
    ("mini", "a photo of a sevn", "'sevn'"),
    ("mini", "a photo of a seven.", "'seven.'"),
    ("mini", "ein Foto", "'ein', 'Foto'"),
    ("mini", "séven", "'séven'"),
    ("mini", "a \N{THUMBS UP SIGN}", "'\N{THUMBS UP SIGN}'"),
    ("mini", "seventy", "'seventy'"),
    ("mini", "a seven!", "'seven!'"),
    ("mini", "七", "'七'"),
    ("mini", "eleven", "'eleven'"),
    ("sd", "cat 7", "'7'"),
    ("sd", "a cat, a dog", "'cat,'"),
    ("sd3", "a 7", "'7'"),
]


@pytest.fixture(scope="module")
def composing():
    """A tokenizer of bytes that composes accents first, as CLIP's does."""
    tokenizers = pytest.importorskip("tokenizers")
    letters = [
        a + end
        for a in sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
        for end in ("", "</w>")
    ]
    words = [*letters, *(f"word{k}</w>" for k in range(600)), "<|endoftext|>"]
    bytes_of = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab={word: k for k, word in enumerate(words)},
            merges=[],
            end_of_word_suffix="</w>",
            unk_token="<|endoftext|>",
        )
    )
    bytes_of.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFC(), tokenizers.normalizers.Lowercase()]
    )
    bytes_of.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=bytes_of, unk_token="<|endoftext|>", model_max_length=77
    )


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat",
        "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
        "cafe\N{COMBINING ACUTE ACCENT}",
        "nin\u0303o",
        "\u1112\u1161\u11ab",
        "\N{MAN}\u200d\N{WOMAN}",
        "\u0130stanbul",
        "a\u00a0cat",
        "don't 7",
    ],
)
def test_a_tokenizer_of_bytes_knows_every_word_however_its_accents_are_written(composing, prompt):
    assert _unread(composing, None, prompt) == ([], "")


@pytest.mark.parametrize("option", ["prompt", "negative_prompt"])
@pytest.mark.parametrize(("kind", "prompt", "words"), UNKNOWN)
def test_words_that_the_tokenizer_does_not_know_are_named(loaded, kind, prompt, words, option):
    name = option.replace("_", " ")
    with pytest.raises(
        InputError,
        match=f"the {name} '{prompt}' has words that the tokenizer does not know: {words}. Say",
    ):
        load_latent(loaded[kind], **{option: prompt}, guidance=2.0)


@pytest.mark.parametrize(
    ("kind", "prompt", "cut"),
    [
        (
            "mini",
            "a photo of the digit seven seven seven",
            "the tokenizer reads, and is cut: 'seven seven' is left out",
        ),
        ("mini", "seven " * 7, "cut: 'seven ' is left out"),
        ("sd", "abcdefghijklmnop", "cut: 'op' is left out"),
        ("sd", "a cat on a mat in a hat", "cut: 'at' is left out"),
        ("sd3", "a " * 130, "than the tokenizer_3 reads, and is cut"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_prompt_that_is_cut_is_told(loaded, kind, prompt, cut):
    with pytest.warns(UserWarning, match=cut):
        load_latent(loaded[kind], prompt=prompt)


def test_a_word_that_one_of_three_tokenizers_does_not_know_is_told(loaded):
    with pytest.warns(
        UserWarning, match="'A cat' has words that the tokenizer_3 does not know: 'A'; others do"
    ):
        load_latent(loaded["sd3"], prompt="A cat")


@pytest.mark.parametrize("scale", [0.0, 0.5, 4.0, -1.0])
@pytest.mark.parametrize("prompt", ["", " ", "\n"])
def test_guidance_without_a_prompt_is_refused(loaded, scale, prompt):
    with pytest.raises(
        InputError,
        match=f"guidance is {scale} without a prompt, so that it has no effect: give a prompt",
    ):
        load_latent(loaded["mini"], prompt=prompt, guidance=scale)
    load_latent(loaded["mini"], prompt=prompt, negative_prompt="a photo of a seven", guidance=scale)
    load_latent(loaded["mini"], prompt=prompt)


@pytest.mark.parametrize(
    "words", [("--guidance", "4"), ("--guidance", "4", "--prompt", " "), ("--guidance", "0")]
)
@pytest.mark.parametrize("command", ["eigenvalues", "audit", "inpaint", "style"])
def test_the_command_line_refuses_it_before_a_model_is_opened(
    monkeypatch, capsys, tmp_path, command, words
):
    status, _, err = call(
        monkeypatch, capsys, command, "--model", "mnist-latent", *words, "--out", tmp_path / "run"
    )
    assert status == 2
    assert "has no effect without --prompt: add one, or leave it out" in " ".join(err.split())


@pytest.mark.parametrize("command", ["eigenvalues", "inpaint"])
def test_the_command_line_names_the_unknown_words(monkeypatch, capsys, tmp_path, command):
    status, _, err = call(
        monkeypatch,
        capsys,
        command,
        "--model",
        "mnist-latent",
        "--prompt",
        "a 7",
        "--out",
        tmp_path / "run",
    )
    assert status == 2
    assert "the prompt 'a 7' has words that the tokenizer does not know: '7'" in " ".join(
        err.split()
    )


@pytest.mark.parametrize("prompt", ["a photo of a seven", "nine"])
def test_guidance_away_from_the_prompt_itself_is_refused(
    monkeypatch, capsys, tmp_path, loaded, prompt
):
    """F_negative + guidance (F_prompt - F_negative) is then F_prompt at every scale."""
    with pytest.raises(
        InputError,
        match=r"guidance is 4\.0 and the negative prompt is the prompt, so that it has no effect",
    ):
        load_latent(loaded["mini"], prompt=prompt, negative_prompt=f" {prompt} ", guidance=4.0)
    load_latent(loaded["mini"], prompt=prompt, negative_prompt=prompt)
    status, _, err = call(
        monkeypatch,
        capsys,
        "inpaint",
        "--model",
        "mnist-latent",
        "--prompt",
        prompt,
        "--negative-prompt",
        prompt,
        "--guidance",
        4,
        "--out",
        tmp_path / "run",
    )
    assert status == 2
    assert "--guidance 4 has no effect where --negative-prompt is --prompt: change one" in " ".join(
        err.split()
    )
