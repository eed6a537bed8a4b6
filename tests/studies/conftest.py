"""Figures of studies under test are drawn as PNG alone, but where a test asks for `pdf`."""

import pytest

from studies.frame.study import FIGURES

PDF = FIGURES["pdf"]


@pytest.fixture(scope="module", autouse=True)
def png_alone():
    """Draw no PDF: its fonts take longer than a small study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(FIGURES, "pdf")
        yield


@pytest.fixture
def pdf(monkeypatch):
    """Draw both."""
    monkeypatch.setitem(FIGURES, "pdf", PDF)
