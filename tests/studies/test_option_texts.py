from dataclasses import fields

from studies.frame.option_texts import option_texts
from studies.jacobian.eigenvalues import Eigenvalues


def test_every_option_has_its_text_in_one_line_the_inherited_ones_too():
    texts = option_texts(Eigenvalues)
    assert {field.name for field in fields(Eigenvalues) if field.init} <= set(texts)
    assert texts["seed"] == "Seed of the noise; each sample derives its own."
    assert not any("\n" in text or not text for text in texts.values())
