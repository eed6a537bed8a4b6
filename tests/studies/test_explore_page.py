"""The explorer in a real browser: the command serves it, Chromium looks at it."""

import os
import re
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import mnist
from jacobian_lab import Inpainting, JacobianOperator, Newton, sample, seeded_noise
from jacobian_lab.sampling.sampler import seed_of
from mnist.evaluate import noisy_digit
from studies.explore.choice import MOST_BYTES
from studies.explore.constrained_steps import COUNT

from conftest import as_bytes, png

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium")
try:
    import bokeh  # noqa: F401
    from playwright.sync_api import expect, sync_playwright
except ImportError:
    CHROMIUM = None
if CHROMIUM is None and not os.environ.get("CI"):
    pytest.skip("needs bokeh, playwright and Chromium", allow_module_level=True)


def heeds_ctrl_c():
    """Undo what a script does to what it starts in the background."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def serving(log, *options):
    """The command, on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["explore", "--no-browser", "--port", str(port), *map(str, options)]
    code = "from studies.cli import main; main()"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *words],
            cwd=ROOT,
            stdout=out,
            stderr=out,
            preexec_fn=heeds_ctrl_c,
        )
    end = time.monotonic() + 60
    while "shows J of" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < end
        time.sleep(0.1)
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.send_signal(signal.SIGINT)
        status = process.wait(timeout=60)
    assert status == 0
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("explore") / "log", "--digit", "3") as address:
        yield address


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def seen():
    """What the page asked for, and its complaints."""
    return {"hosts": set(), "errors": []}


@pytest.fixture(scope="module")
def page(server, browser, seen):
    page = browser.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(20_000)
    page.on(
        "request", lambda request: seen["hosts"].add(re.match(r"\w+:(//[^/]+)?", request.url)[0])
    )
    page.on("websocket", lambda ws: seen["hosts"].add(re.match(r"\w+://[^/]+", ws.url)[0]))
    page.on("pageerror", lambda error: seen["errors"].append(str(error)))
    page.on(
        "console",
        lambda message: seen["errors"].append(message.text) if message.type == "error" else None,
    )
    page.goto(server)
    page.get_by_text("Answered in").wait_for()
    yield page
    page.close()


def turn(page, tab):
    page.locator(f"#tab-{tab}").click()


def pixel_at(page, figure, row, column, size=32):
    """Return the place on the screen of a pixel of a canvas of a part."""
    box = figure.bounding_box()
    return (
        box["x"] + box["width"] * (column + 0.5) / size,
        box["y"] + box["height"] * (row + 0.5) / size,
    )


def cell(page, part, head):
    """Return what a table says beside a head."""
    row = page.locator(f"{part} tr").filter(
        has=page.get_by_role("rowheader", name=head, exact=True)
    )
    return row.locator("td").first


def value(text):
    return float(text.split("±")[0].replace("−", "-").strip())


@pytest.fixture(scope="module")
def truth():
    denoiser = mnist.load_denoiser()
    x_t = noisy_digit(denoiser, mnist.digits("held-out")[0][3], 500, 0, 3)
    return denoiser, JacobianOperator(denoiser, x_t, 500)


def test_a_click_on_a_pixel_shows_its_column_and_row_of_the_operator(page, truth):
    turn(page, "pixel")
    pictures = page.locator("#part-pixel img")
    expect(pictures).to_have_count(5)
    before = [picture.get_attribute("src") for picture in pictures.all()]
    denoised = page.locator(".four .bk-Figure")
    page.mouse.click(*pixel_at(page, denoised, 12, 20))
    expect(cell(page, "#part-pixel", "Pixel p")).to_have_text("row 12, column 20")
    for picture, old in zip(pictures.all(), before, strict=True):
        expect(picture).not_to_have_attribute("src", old)
    e = np.zeros(1024, np.float32)
    e[12 * 32 + 20] = 1
    J = truth[1]
    column, row = J @ e, J.T @ e
    shown = {
        "J[p, p]": column @ e,
        "|column|": np.linalg.norm(column),
        "|row|": np.linalg.norm(row),
        "Cosine of column and row": column @ row / np.linalg.norm(column) / np.linalg.norm(row),
        "|column − row| / |column + row|": np.linalg.norm(column - row)
        / np.linalg.norm(column + row),
    }
    for head, expected in shown.items():
        told = value(cell(page, "#part-pixel", head).inner_text())
        assert told == pytest.approx(float(expected), rel=2e-5), head
    assert f"{J.path}, relative error at most" in cell(page, "#part-pixel", "Products").inner_text()


def test_the_keyboard_chooses_a_pixel_and_a_tab(page):
    turn(page, "pixel")
    row = page.locator("#part-pixel input").first
    row.fill("5")
    row.press("Enter")
    expect(cell(page, "#part-pixel", "Pixel p")).to_have_text("row 5, column 20")
    page.locator("#tab-pixel").press("ArrowRight")
    expect(page.locator("#part-wish")).to_be_visible()
    expect(page.locator("#part-pixel")).to_be_hidden()


def test_a_painted_wish_has_the_residuals_of_its_directions(page, truth):
    turn(page, "wish")
    canvas = page.locator("#part-wish .bk-Figure")
    canvas.scroll_into_view_if_needed()
    page.mouse.move(*pixel_at(page, canvas, 8, 8))
    page.mouse.down()
    page.mouse.move(*pixel_at(page, canvas, 8, 14), steps=4)
    page.mouse.up()
    cell(page, "#part-wish", "GMRES").wait_for()
    residual = value(cell(page, "#part-wish", "J e").inner_text())
    strokes = page.evaluate("Bokeh.documents[0].get_model_by_name('wish-strokes').text")
    codes = np.flipud(np.array([int(c) for c in strokes]).reshape(32, 32))
    assert {*np.unique(codes)} == {0, 1}
    assert codes[8, 8:15].all()  # no gap in the stroke
    J = truth[1]
    d = J.products.d.numpy().reshape(-1)
    e = np.where(codes.reshape(-1) == 1, 1 - d, 0).astype(np.float32)
    expected = np.linalg.norm(e - J @ (J @ e)) / np.linalg.norm(e)
    assert residual == pytest.approx(float(expected), rel=2e-3)
    page.get_by_text("Clear", exact=True).click()
    expect(page.locator("#part-wish")).to_contain_text("paint on D(xₜ)")


def test_a_painted_mask_gives_samples_that_meet_it_with_the_residuals_of_sample(page, truth):
    turn(page, "sample")
    canvas = page.locator("#part-sample .bk-Figure").first
    canvas.scroll_into_view_if_needed()
    page.mouse.click(*pixel_at(page, canvas, 28, 3))  # hides some of the left half
    expect(page.locator("#part-sample select").first).to_have_value("painted")
    for label, number in (("Times", 5), ("Newton steps a time", 2)):
        field = page.locator("#part-sample").get_by_label(label)
        field.fill(str(number))
        field.press("Enter")
    page.get_by_text("Draw samples", exact=True).click()
    page.get_by_text("Done: ").wait_for()
    notes = page.locator("#part-sample .note").all_inner_texts()
    told = [float(n.split(")")[1]) for n in notes if n.startswith("residual")]
    strokes = page.evaluate("Bokeh.documents[0].get_model_by_name('mask-strokes').text")
    known = np.flipud(np.array([int(c) for c in strokes]).reshape(32, 32)) == 0
    assert 400 < known.sum() < 512
    denoiser, digit = truth[0], mnist.digits("held-out")[0][3]
    mask = torch.from_numpy(known[None].copy())
    noise = seeded_noise([seed_of(0, i) for i in range(COUNT)], denoiser.shape)
    times, newton = denoiser.schedule.times(5), Newton("inexact", steps=2)
    *_, last = sample(denoiser, noise, times, Inpainting(digit[None], mask), newton)
    assert told == pytest.approx(last.residual.tolist(), abs=2e-4)
    curve = "Bokeh.documents[0].get_model_by_name('sample-curve').renderers[0].data_source.data"
    assert len(page.evaluate(f"Array.from({curve}.x)")) == 5 * 3  # also of states not shown
    direct = ((last.x0 - digit)[:, mask].square().mean(1)).sqrt()
    assert told == pytest.approx(direct.tolist(), abs=2e-4)
    assert max(told) < 0.3  # met as far as so few steps go; noise has 1.4


def test_eigenvalues_come_with_errors_and_a_run_can_be_stopped(page):
    turn(page, "spectrum")
    page.locator("#part-spectrum").get_by_text("Converged").wait_for()
    expect(page.locator("#part-spectrum img")).to_have_count(4)  # a job of their own
    rows = page.locator("#part-spectrum tbody tr").all_inner_texts()
    assert len(rows) in (6, 7)
    assert all(re.search(r"\de-\d\d", row) for row in rows)
    turn(page, "sample")
    for label, number in (("Times", 100), ("Newton steps a time", 20)):  # longer than this test
        field = page.locator("#part-sample").get_by_label(label)
        field.fill(str(number))
        field.press("Enter")
    page.get_by_role("button", name=re.compile("^Draw (samples|again)$")).click()
    page.get_by_text("Drawing: ").wait_for()
    page.get_by_text("Stop", exact=True).click()
    page.get_by_text("Stopped.").wait_for()


def test_an_upload_is_looked_at_and_a_broken_or_oversized_one_is_refused(page, tmp_path):
    chooser, alert = page.locator("#file"), page.locator(".alert")
    broken, large = tmp_path / "broken.png", tmp_path / "large.png"
    broken.write_bytes(b"\x89PNG, or not")
    large.write_bytes(b"x" * (MOST_BYTES + 1))
    wide = png(tmp_path / "wide.png", np.zeros((4001, 4001)))
    for path, message in (
        (broken, "broken.png is not an image that can be read"),
        (large, "large.png has 4,194,305 bytes: expected at most 4,194,304"),
        (wide, "wide.png has 4001x4001 pixels: expected at most 16,000,000"),
    ):
        chooser.set_input_files(path)
        expect(alert).to_contain_text(message)
        assert "Traceback" not in alert.inner_text()
    clean = page.locator(".four img").first
    before = clean.get_attribute("src")
    chooser.set_input_files(png(tmp_path / "seven.png", as_bytes(mnist.digits("held-out")[0][7])))
    expect(page.locator(".four")).to_contain_text("seven.png")
    expect(clean).not_to_have_attribute("src", before)
    expect(alert).to_have_text("")
    page.get_by_text("Back to the digit").click()
    expect(page.locator(".four")).to_contain_text("the clean digit")


def test_a_phone_s_page_has_no_sideways_scroll(page):
    page.set_viewport_size({"width": 390, "height": 844})
    for tab in ("pixel", "wish", "spectrum", "sample"):
        turn(page, tab)
        page.wait_for_timeout(100)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.set_viewport_size({"width": 1280, "height": 1000})


def test_nothing_was_asked_of_another_host_and_nothing_went_wrong(page, server, seen):
    host = server.removeprefix("http:").rstrip("/")
    assert {re.sub(r"^(https?|wss?):", "", h) for h in seen["hosts"]} <= {host, "data:", "blob:"}
    assert host in {re.sub(r"^(https?|wss?):", "", h) for h in seen["hosts"]}
    assert seen["errors"] == []


COLOURED = """
import torch
from jacobian_lab import DiscreteSchedule
from jacobian_lab.diffusion.oracle import gaussian

SCHEDULE = DiscreteSchedule((1 - torch.linspace(1e-4, 0.02, 1000)).cumprod(0))


def make():
    mixed = torch.randn(192, 192, generator=torch.Generator().manual_seed(0))
    return gaussian(torch.zeros(192), mixed @ mixed.T / 192, SCHEDULE, (3, 8, 8)).denoiser()
"""


@pytest.mark.slow
def test_a_model_of_coloured_images_waits_for_one_and_answers_a_finger(browser, tmp_path):
    (tmp_path / "net.py").write_text(COLOURED)
    with serving(tmp_path / "log", "--model", f"{tmp_path}/net.py:make") as address:
        page = browser.new_context(
            has_touch=True, viewport={"width": 390, "height": 844}
        ).new_page()
        page.set_default_timeout(20_000)
        errors = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        expect(page.locator(".alert")).to_contain_text("images of 3x8x8: upload an image")
        expect(page.locator(".four")).to_contain_text("no image yet")
        turn(page, "wish")  # a stroke on no picture
        canvas = page.locator("#part-wish .bk-Figure")
        canvas.scroll_into_view_if_needed()
        page.touchscreen.tap(*pixel_at(page, canvas, 2, 3, size=8))
        turn(page, "pixel")
        image = np.random.default_rng(0).integers(0, 256, (8, 8, 3))
        page.locator("#file").set_input_files(png(tmp_path / "coloured.png", image))
        page.get_by_text("Answered in").wait_for()
        denoised = page.locator(".four .bk-Figure")
        denoised.scroll_into_view_if_needed()
        page.touchscreen.tap(*pixel_at(page, denoised, 2, 3, size=8))
        expect(cell(page, "#part-pixel", "Pixel p")).to_have_text("row 2, column 3, red")
        told = value(cell(page, "#part-pixel", "J[p, p]").inner_text())
        denoiser = runpy.run_path(str(tmp_path / "net.py"))["make"]()
        J = JacobianOperator(denoiser, torch.zeros(1, 3, 8, 8), 500)  # the same J at each x_t
        e = np.zeros(192, np.float32)
        e[2 * 8 + 3] = 1
        assert told == pytest.approx(float((J @ e) @ e), rel=1e-3)
        assert errors == []
        page.close()
