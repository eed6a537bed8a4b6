"""A study's figure as an SVG element that stands in a page of HTML beside others: with ids of its
own, a label for those who do not see it, and images that stay sharp when enlarged.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

from studies.frame.dataset import Arrays
from studies.frame.study import Study, figures

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
LOOKS: dict[str, Any] = {
    "svg.fonttype": "none",  # text, which can be searched and copied
    "svg.hashsalt": "jacobian-lab",  # ids that are the same in each drawing
    "image.interpolation": "none",  # pixels as they are, for the browser to enlarge
}
REFERENCE = re.compile(r"url\(#")
FAMILY = re.compile(r"font-family: [^;]*;? ?")
"""Of one font; the page's style sheet has a list, for machines that lack it."""


def inline_figure(study: Study[Any], arrays: Arrays, prefix: str, label: str) -> str:
    """Return the figure of a study as an SVG element.

    Parameters
    ----------
    study : Study
        One that draws.
    arrays : dict of arrays
        The data of one of its runs.
    prefix : str
        How its ids begin; another for each figure of a page.
    label : str
        What the figure shows, for screen readers.
    """
    drawn = figures(study, arrays, ("svg",), LOOKS)["svg"]
    return _fit_into_page(drawn, prefix, label)


def _fit_into_page(drawn: bytes, prefix: str, label: str) -> str:
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    svg = ElementTree.fromstring(drawn)
    for parent in list(svg.iter()):
        for child in list(parent):
            # the date of drawing, and rules for the page as a whole
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    seen: set[str] = set()
    for element in svg.iter():
        for name, value in element.attrib.items():
            element.set(name, _with_prefix(name, value, prefix))
        if element.get("id") in seen:  # matplotlib gives equal images one id
            del element.attrib["id"]
        seen.add(element.get("id", ""))
        if element.tag in (f"{{{SVG}}}text", f"{{{SVG}}}tspan") and "style" in element.attrib:
            element.set("style", FAMILY.sub("", element.attrib["style"]))
    _size(svg)
    svg.set("role", "img")
    svg.set("aria-label", label)
    return ElementTree.tostring(svg, encoding="unicode")


def _with_prefix(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name in ("href", f"{{{XLINK}}}href") and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    return REFERENCE.sub(f"url(#{prefix}-", value)


def _size(svg: ElementTree.Element) -> None:
    """Let the page choose the size, up to the figure's own."""
    width = svg.attrib.pop("width")
    del svg.attrib["height"]
    svg.set("style", f"--own: {width}")
