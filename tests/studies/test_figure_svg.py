import re
from xml.etree import ElementTree

import numpy as np
from matplotlib.figure import Figure

from studies.archive.figure_svg import inline_figure
from studies.frame.study import Study

from squares import Options

IMAGE = np.arange(12.0).reshape(3, 4)


def drawing(arrays):
    """A figure with all that has ids: clips, markers, gradients of text, an image and its equal."""
    figure = Figure(figsize=(4, 2))
    left, right, same = figure.subplots(1, 3)
    left.plot(arrays["x"], "o-")
    left.set_title(str(arrays["title"]))
    left.set_xlabel("$x_t$")
    right.imshow(IMAGE)
    same.imshow(IMAGE)
    return figure


STUDY = Study("drawn", Options, lambda *_: {}, lambda _: [], drawing, lambda _: {})
HOSTILE = 'a "quoted" <script>alert(1)</script> & id="x" url(#y)'


def drawn(prefix, title="title"):
    return inline_figure(STUDY, {"x": np.arange(3.0), "title": np.array(title)}, prefix, HOSTILE)


def test_ids_of_two_figures_are_apart_and_each_refers_to_its_own():
    one, other = drawn("run-1"), drawn("run-2")
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in (one, other)]
    assert len(ids[0]) == len(set(ids[0])) > 10
    assert not set(ids[0]) & set(ids[1])
    for svg, known in zip((one, other), ids, strict=True):
        refers = re.findall(r'(?:href="|url\()#([^")]+)', svg.replace("url(#y)", ""))
        assert refers
        assert set(refers) <= set(known)
    assert one == other.replace("run-2-", "run-1-")  # no date, no random part


def test_texts_are_text_and_escaped_and_left_as_they_are():
    svg = drawn("run-1", HOSTILE)
    assert "<script" not in svg
    root = ElementTree.fromstring(svg)
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert HOSTILE in texts
    assert (root.get("role"), root.get("aria-label")) == ("img", HOSTILE)
    assert not list(root.iter("{http://www.w3.org/2000/svg}style"))  # would rule the whole page


def test_images_keep_their_pixels_for_the_browser_to_enlarge():
    from base64 import b64decode
    from io import BytesIO

    from PIL import Image

    contents = re.findall(r'href="data:image/png;base64,([^"]+)"', drawn("run-1"))
    sizes = [Image.open(BytesIO(b64decode(content))).size for content in contents]
    assert sizes == [IMAGE.shape[::-1]] * 2
