"""The notebooks and the pages of the site that are made of them and of reports.

All notebooks run when the site is built, in CI; here only two of them by default.
"""

import json
import re
from pathlib import Path

import pytest

from studies.site import gallery_page
from studies.site.notebook_page import cells, page_of_notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "studies" / "notebooks").glob("*.ipynb"))
QUICK = ("superres", "jacobian_analysis")


def test_there_is_a_notebook_for_each_of_the_papers():
    page = (ROOT / "studies" / "site" / "notebooks.md").read_text()
    assert set(re.findall(r"\(notebooks/(\w+)\.md\)", page)) == {path.stem for path in NOTEBOOKS}
    readme = (ROOT / "README.md").read_text()
    table = readme[readme.index("in the paper and its notebooks") :]
    for path in NOTEBOOKS:
        assert path.stem.replace("_", "-") in table.replace("_", "-").lower()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stripped_and_use_the_front_door(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(ids) == len(set(ids))
    assert notebook["cells"][0]["source"][0].startswith("# ")
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    text = "\n".join("".join(cell["source"]) for cell in code)
    assert not re.search(r"jacobian_lab\.\w|from mnist|from studies|\._", text)


@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=[] if p.stem in QUICK else pytest.mark.slow) for p in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_notebooks_run(path, tmp_path):
    page = page_of_notebook(path, tmp_path, "figures")
    drawn = re.findall(r"\]\(figures/(.+?)\)", page)
    assert drawn
    assert sorted(drawn) == sorted(file.name for file in tmp_path.iterdir())
    assert page.count("```python\n") == sum(kind == "code" for kind, _ in cells(path))
    assert "nan" not in page


def test_super_resolution_in_the_notebook_beats_bicubic(tmp_path):
    path = next(path for path in NOTEBOOKS if path.stem == "superres")
    page = page_of_notebook(path, tmp_path, "figures")
    bicubic, ours = map(float, re.findall(r"PSNR ([\d.]+) dB", page))
    assert ours > bicubic + 3


def test_a_cell_that_raises_fails_the_page(tmp_path):
    cell = {"cell_type": "code", "source": ["1 / 0"]}
    (tmp_path / "n.ipynb").write_text(json.dumps({"cells": [cell]}))
    with pytest.raises(ZeroDivisionError):
        page_of_notebook(tmp_path / "n.ipynb", tmp_path, "figures")


@pytest.mark.filterwarnings("ignore")  # of variables that a study does not describe
def test_a_card_of_the_gallery_opens_the_report_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(gallery_page, "LINES", ("inpaint --digits 1 --samples 1 --steps 2",))
    (tmp_path / "reports").mkdir()
    page = gallery_page.gallery(tmp_path / "runs", tmp_path / "reports", "reports")
    assert '<a href="reports/inpaint.html"><img src="reports/inpaint.png"' in page
    assert (tmp_path / "reports" / "inpaint.png").read_bytes().startswith(b"\x89PNG")
    report = re.sub("<[^>]+>", "", (tmp_path / "reports" / "inpaint.html").read_text())
    assert "jacobian-lab inpaint --digits 1 --samples 1 --steps 2" in report  # the manifest's
