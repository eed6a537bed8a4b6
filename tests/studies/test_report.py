import json
import os
import re
import warnings
from itertools import pairwise
from pathlib import Path

import html5lib
import pytest

from jacobian_lab import __version__
from studies.archive.report import HERE, page_of

from conftest import call
from stored_runs import SCRIPT, hostile, inpainted

ROOT = Path(__file__).parents[2]
LIMIT = 5e6
"""Bytes of a page."""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of three runs: two of one sweep, and one with scripts in place of a user's words."""
    runs = tmp_path_factory.mktemp("runs")
    one, other, third = (inpainted(runs, seed=seed) for seed in (0, 1, 2))
    return page_of([one, other, hostile(third)])


def checked(page):
    """Return the parsed page, which is valid, whole, and refers to nothing outside."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    root = parser.parse(page)  # or ParseError
    assert len(page.encode()) < LIMIT
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    for element in root.iter():
        for name in ("href", "src", "{http://www.w3.org/1999/xlink}href", "xlink:href"):
            target = element.get(name) or "#"
            assert target.startswith(("#", "data:"))
            assert (
                target in ("#", "data:,")
                or target.startswith("data:image/png")
                or (target[1:] in ids)
            )
    assert not re.search(r"@import|url\((?!#)", page)
    return root


def text_of(element):
    return " ".join("".join(element.itertext()).split())


def test_the_page_is_valid_and_holds_all_that_it_shows(page):
    checked(page)


def test_headings_are_in_order_and_tables_have_headings_with_scope(page):
    root = checked(page)
    levels = [int(e.tag[1]) for e in root.iter() if re.fullmatch("h[1-6]", str(e.tag))]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all(head.get("scope") in ("col", "row") for head in root.iter("th"))
    assert all(box.get("aria-label") for box in root.iter() if box.get("role") in ("region", "img"))


def test_what_comes_from_a_run_is_escaped(page):
    (script,) = checked(page).iter("script")
    assert "alert" not in text_of(script)
    assert text_of(checked(page)).count(SCRIPT) >= 5  # as text, in options, table and figure


def test_runs_of_a_sweep_are_linked_and_told_apart(page):
    root = checked(page)
    headings = [text_of(heading) for heading in root.iter("h2")]
    assert "What differs between the runs of inpaint" in headings
    first = next(root.iter("table"))
    rows = [[text_of(cell) for cell in row] for row in first.iter("tr")]
    assert rows[0] == ["run", "--seed"]
    assert [row[1] for row in rows[1:]] == ["0", "1"]  # the third is three options away
    assert [link.get("href") for link in first.iter("a")] == ["#run-1", "#run-2"]


def test_the_command_writes_the_page_whole_or_not_at_all(monkeypatch, capsys, tmp_path):
    run, to = inpainted(tmp_path), tmp_path / "page.html"
    status, out, err = call(monkeypatch, capsys, "report", run.folder, "--to", to)
    assert status == 0, err
    assert out.startswith(f"{to}: 1 run of jacobian-lab, 0.")
    root = checked(to.read_text())
    assert "Contents" not in [text_of(heading) for heading in root.iter("h2")]
    before = to.read_bytes()
    (run.folder / "manifest.json").write_text("[")
    status, _, err = call(monkeypatch, capsys, "report", run.folder, "--to", to)
    assert (status, err.count("\n")) == (2, 1)
    assert "manifest.json is not the manifest of a finished run" in err
    assert to.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [run.folder.name, "page.html"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["here"], "here is not the folder of a run: it has no config.json"),
        (["run.partial"], "run.partial is unfinished: its command goes on with it"),
        (["run", "--to", "page.pdf"], "--to must end in .html: got page.pdf"),
    ],
)
def test_slips_are_named(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / "config.json").write_text(json.dumps({"study": "inpaint"}))
    status, _, err = call(monkeypatch, capsys, "report", *words)
    assert status == 2
    assert message in " ".join(err.split())
    assert not list(tmp_path.glob("*.html"))


def test_what_is_cited_is_what_the_readme_and_citation_cff_name():
    cited = (HERE / "citation.bib").read_text()
    readme = re.search(r"    @inproceedings.*?\n    }\n", (ROOT / "README.md").read_text(), re.S)[0]
    assert re.sub("^    ", "", readme, flags=re.M) in cited
    cff = (ROOT / "CITATION.cff").read_text()
    for name in ("title", "version", "license"):
        assert f"{{{re.search(rf'^{name}: (.*)$', cff, re.M)[1]}}}" in cited
    assert f"{{{__version__}}}" in cited


def chromium():
    """Return a browser that is there, and never one that would be downloaded."""
    needed = pytest.fail if os.environ.get("CI") else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        needed("playwright is not installed")
    path = Path("/usr/bin/chromium")
    if not path.is_file():
        needed(f"there is no {path}")
    return sync_playwright(), {"executable_path": str(path), "args": ["--no-sandbox"]}


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_shows_it_offline_without_a_word(page, tmp_path, width, scheme):
    play, how = chromium()
    (tmp_path / "page.html").write_text(page)
    address, seen = f"file://{tmp_path}/page.html", []
    with play as started:
        browser = started.chromium.launch(**how)
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        tab = context.new_page()
        tab.on("console", lambda message: seen.append(message.text))
        tab.on("pageerror", lambda error: seen.append(str(error)))
        tab.on("request", lambda request: seen.append(request.url))
        tab.goto(address)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        # sorted by a click, and back; numbers as numbers
        column = (
            "[...document.querySelector('table').tBodies[0].rows].map(r => r.cells[1].innerText)"
        )
        button = tab.locator("table").first.locator("thead th").nth(1).locator("button")
        button.click()
        assert tab.evaluate(column) == ["0", "1"]
        button.click()
        assert tab.evaluate(column) == ["1", "0"]
        # enlarged without a script
        figure = tab.locator("#run-1-figure + figure")
        before = figure.locator("svg").bounding_box()["width"]
        figure.locator("label").click()
        assert figure.locator("svg").bounding_box()["width"] > 1.3 * before
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        # print opens what is folded
        tab.emulate_media(media="print")
        assert tab.locator("#run-1-provenance").is_visible()
        browser.close()
    assert seen == [address]


def test_all_is_there_without_a_script(page, tmp_path):
    play, how = chromium()
    (tmp_path / "page.html").write_text(page)
    with play as started:
        browser = started.chromium.launch(**how)
        tab = browser.new_context(java_script_enabled=False).new_page()
        tab.goto(f"file://{tmp_path}/page.html")
        assert tab.locator("th button").count() == 0
        details = tab.locator("details").first
        details.locator("summary").click()
        assert details.locator("tbody tr").first.is_visible()
        browser.close()


STEPS = "--steps 2 --newton-steps 1"
SMALL = f"""
directions --digits 1 --times 400 --rconds 0.2 0.01
eigenvalues --digits 1 --seeds 1 --times 900
spectrum --arnoldi-steps 12
eigenvectors --k 2 --model oracle
symmetry --digits 1 --times 600 --shown 600
guidance --digit 7 --digits 1 --guidances 0 1 4 --times 600
accuracy --times 500 --vectors 2 --pairs 3
evaluate --times 200 800 --digits 20 --jacobians 1 --samples 64 --steps 2
inpaint --digits 1 {STEPS}
superres --digits 1 {STEPS}
style --digits 3 --samples 2 {STEPS}
guide --classes 3 8 --samples 2 {STEPS}
convergence --digits 2 --steps 3 --newton-steps 1 --jacobians 1 --points 2 --spectral 0.5
directions-budget --digits 3 --searched 1 --budgets 11 14 --exact-digits 1 --exact-times 2
posterior --samples 40 --exact-samples 8 --curves 1 --steps 4 --newton-steps 2
captions --guidances 1 3 --samples 4 --stock 2 --steps 2 --digits 20
vae-newton --digits 2 --measured 1 --times 500 --batch-size 4 {STEPS}
benchmark products --batches 1 --rounds 1
benchmark dense --rounds 1
benchmark eigenpairs --k 2 --digits 1 --times 500 --rtol 1e-3 --dtype float32
benchmark memory --batches 10
benchmark sampler --batches 2 --times 1 --rounds 2
benchmark full-size
benchmark growth --sides 32 --tokens 64 256 --rounds 1
benchmark training --batch 1 --rounds 1
benchmark cuda
quality --updates 27 --tested 2 --samples 40 --steps 2 --times 500
memorisation --updates 20 --sizes 10 4000 --samples 8 --tested 2 --steps 2 --times 100 500
skewness --updates 30 --trainings 2 --samples 20 --digits 2 --times 500 --model-times 300
risk --digits 40 --times 50 --draws 1024
dimension --digits 20 --spectra 2 --seeds 1 --times 200
shrinkage --updates 10 --tested 2 --times 500 --sizes 10 40
locality --digits 3 --times 900
moments --digits 2 --times 500
editing --digits 2 --times 500
benchmark contest --tasks half --methods DDIM --digits 4 --searched 2 --again 2 --budgets 6 12
benchmark contests
"""


@pytest.mark.slow
@pytest.mark.parametrize("line", SMALL.strip().splitlines(), ids=lambda line: line.split(" --")[0])
def test_every_study_has_a_report(monkeypatch, capsys, tmp_path, line):
    run, to = tmp_path / "run", tmp_path / "page.html"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        words = line.split()
        if line == "benchmark contests":
            held = next(
                words for words in SMALL.splitlines() if words.startswith("benchmark contest ")
            )
            call(monkeypatch, capsys, *held.split(), "--out", tmp_path / "held")
            words = [*words, tmp_path / "held"]
        status, _, err = call(monkeypatch, capsys, *words, "--out", run)
        assert status == 0, err
    status, _, err = call(monkeypatch, capsys, "report", run, "--to", to)
    assert status == 0, err
    root = checked(to.read_text())
    assert len(list(root.iter("figure"))) == ("benchmark" not in line or "contest" in line)


def test_the_list_above_holds_every_study():
    from studies.commands import COMMANDS

    known = {
        n for group in COMMANDS.values() for n, command in group.items() if not command.function
    }
    assert {line.split(" --")[0] for line in SMALL.strip().splitlines()} == known
