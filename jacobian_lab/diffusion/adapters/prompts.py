"""Whether the tokenizers of a pipeline read a prompt as it is written."""

from __future__ import annotations

import re
import unicodedata
import warnings
from typing import Any

from jacobian_lab.diffusion.adapters.pipelines import Opened
from jacobian_lab.errors import InputError

TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
LENGTHS = {
    ("StableDiffusion3Pipeline", "tokenizer_3"): 256,
    ("FluxPipeline", "tokenizer_2"): 512,
    ("PixArtAlphaPipeline", "tokenizer"): 120,
    ("PixArtSigmaPipeline", "tokenizer"): 300,
    ("SanaPipeline", "tokenizer"): 300,
    ("AuraFlowPipeline", "tokenizer"): 256,
    ("Lumina2Pipeline", "tokenizer"): 256,
}
"""How many tokens a pipeline takes where that is not the tokenizer's own limit."""
WHOLE = 1000
"""Tokens below which a vocabulary is one of whole words: a larger one spells all words, a smaller
one those of its captions.
"""


def check_words(opened: Opened, option: str, text: str) -> None:
    """Tell of words that a pipeline does not read as they are written.

    Parameters
    ----------
    opened : Opened
        Its tokenizers are asked.
    option : str
        Which text it is, for the message, such as "negative prompt".
    text : str

    Raises
    ------
    InputError
        If none of its tokenizers knows a word: the prompt is then another one.

    Warns
    -----
    UserWarning
        If one of several does not know a word, or the text is longer than it reads; the pipeline
        itself cuts it there too.
    """
    names = [name for name in TOKENIZERS if getattr(opened.pipeline, name, None) is not None]
    lost = {}
    for name in names:
        most = LENGTHS.get((opened.kind, name))
        lost[name], cut = _unread(getattr(opened.pipeline, name), most, text)
        if cut:
            warnings.warn(
                f"the {option} is longer than the {name} reads, and is cut: {cut!r} is left out."
                " Shorten it",
                UserWarning,
                stacklevel=4,
            )
    for name, words in lost.items():
        if not words:
            continue
        message = (
            f"the {option} {text!r} has words that the {name} does not know:"
            f" {', '.join(map(repr, words))}"
        )
        if set.intersection(*map(set, lost.values())):
            raise InputError(f"{message}. Say it in other words, such as 'seven' for '7'")
        warnings.warn(f"{message}; others do", UserWarning, stacklevel=4)


def _unread(tokenizer: Any, most: int | None, text: str) -> tuple[list[str], str]:
    """Return the words of a text that a tokenizer does not know, and the end that it cuts off."""
    # as the tokenizers do, whose spans leave out an accent that they compose
    text = unicodedata.normalize("NFC", text)
    encoded = tokenizer(
        text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast, verbose=False
    )
    ids, spans = encoded["input_ids"], encoded.get("offset_mapping")
    # a tokenizer in Python: its words are asked for one by one, and its end is not known
    if spans is None:
        found = {
            word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in text.split()
        }
        return [word for word, of in found.items() if not of or tokenizer.unk_token_id in of], ""
    spelt: set[str] = set()  # letters of whole words, if it has any
    if len(tokenizer) < WHOLE:
        special = set(tokenizer.all_special_tokens)
        plain = (
            token.replace("</w>", "").lstrip("▁Ġ")
            for token in tokenizer.get_vocab()
            if token not in special
        )
        spelt = {letter for token in plain if len(token) > 1 for letter in token}
    unknown = []
    for word in re.finditer(r"\S+", text):
        start, end = word.span()
        pieces = [
            (token, span)
            for token, span in zip(ids, spans, strict=True)
            if span[1] > start and span[0] < end
        ]
        dropped = not set(range(start, end)) <= {k for _, span in pieces for k in range(*span)}
        in_letters = bool(spelt) and (
            len(pieces) > 1 or (end - start == 1 and word[0].lower() not in spelt)
        )
        if dropped or in_letters or any(token == tokenizer.unk_token_id for token, _ in pieces):
            unknown.append(word[0])
    room = (most or tokenizer.model_max_length) - tokenizer.num_special_tokens_to_add()
    return unknown, text[spans[room][0] :] if len(ids) > room else ""
