"""`jacobian-lab plot`: a finished run's figure anew, in another style, without computing."""

import pytest

from archive_runs import make_run
from conftest import call


def test_a_style_file_changes_the_figure_and_nothing_else(monkeypatch, capsys, tmp_path, pdf):
    folder = make_run(tmp_path / "runs")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    style = tmp_path / "talk.mplstyle"
    style.write_text("font.size: 14\naxes.labelsize: 14\n")
    status, out, _ = call(
        monkeypatch, capsys, "plot", folder, "--style", style, "--to", tmp_path / "talk.svg"
    )
    assert (status, out.strip()) == (0, str(tmp_path / "talk.svg"))
    assert "<svg" in (tmp_path / "talk.svg").read_text()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert call(monkeypatch, capsys, "plot", folder, "--style", style)[0] == 0
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    changed = {name for name in after if after[name] != before[name]}
    assert changed == {"figure.png", "figure.pdf"}
    assert call(monkeypatch, capsys, "plot", folder)[0] == 0
    assert (folder / "figure.png").read_bytes() == before["figure.png"]


@pytest.mark.parametrize(
    ("style", "said"), [("font.sise: 3", "font.sise"), (None, "is no style file of matplotlib")]
)
def test_a_style_that_is_none_is_refused(monkeypatch, capsys, tmp_path, style, said):
    folder = make_run(tmp_path / "runs")
    if style:
        (tmp_path / "x.mplstyle").write_text(style)
    status, _, err = call(monkeypatch, capsys, "plot", folder, "--style", tmp_path / "x.mplstyle")
    assert status == 2
    assert said in err


def test_what_matplotlib_cannot_draw_is_told(monkeypatch, capsys, tmp_path):
    folder, style = make_run(tmp_path), tmp_path / "tex.mplstyle"
    style.write_text("text.usetex: True\n")
    monkeypatch.setenv("PATH", "")  # no LaTeX
    status, _, err = call(monkeypatch, capsys, "plot", folder, "--style", style)
    assert (status, err.count("\n")) == (2, 1)
    assert "the figure cannot be drawn with --style" in err


def test_another_ending_is_refused(monkeypatch, capsys, tmp_path):
    status, _, err = call(monkeypatch, capsys, "plot", tmp_path, "--to", "figure.gif")
    assert status == 2
    assert "must end in .png, .pdf or .svg" in err
