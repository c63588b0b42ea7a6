"""The site builds without a warning, offline; it is complete, and works in a real browser."""

import re
from urllib.parse import urlsplit

import pytest

from tests.site.browser import needs_chromium
from tests.site.conftest import ROOT

LINK = re.compile(r"\]\(([^():#]+\.md)")
"""A link to another page of the repository."""

PHONE, DESK = 390, 1280
SHOWN = [
    "index.html",
    "reference/heads.html",
    "explanation/derivation.html",
    "how_to/migrate.html",
    "examples/cityscapes.html",
    "how_to/what_to_monitor.html",
    "measurements/index.html",
    "404.html",
]

TOO_WIDE = """
    (root => [...root.querySelectorAll('*')].filter(e => {
        if (e.getBoundingClientRect().right <= innerWidth + 1) return false;
        for (let box = e; box !== root; box = box.parentElement)
            if (getComputedStyle(box).overflowX !== 'visible') return false;
        return true;
    }).map(e => e.outerHTML.slice(0, 80)))(document.querySelector('article') || document.body)
"""
"""What the screen cuts off, unless a box of its own lets one scroll to it."""


def test_every_page_is_reached_from_the_contents(site):
    contents = (site / "index.html").read_text()
    for page in site.rglob("*.html"):
        name = page.relative_to(site).as_posix()
        if name not in ("index.html", "search.html", "404.html") and "_modules" not in name:
            assert name in contents


def test_every_page_is_reached_by_links_of_plain_markdown():
    """A host of repositories shows the pages as Markdown, without the menu of the site."""
    docs = ROOT / "docs"
    reached, new = set(), {docs / "index.md"}
    while new:
        reached |= new
        links = [(page, path) for page in new for path in LINK.findall(page.read_text())]
        new = {(page.parent / path).resolve() for page, path in links} - reached
    copied = {"_build", "results"}  # by a build of the site
    assert {path for path in docs.rglob("*.md") if not copied & set(path.parts)} <= reached


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
@pytest.mark.parametrize("name", SHOWN)
def test_a_page_is_readable_and_asks_nobody_else(page, address, name, width, dark):
    page.open(f"{address}/{name}", width=width, dark=dark)
    check_page(page, width, dark)
    assert {urlsplit(url).netloc for url in page.requests if not url.startswith("data:")} == {
        urlsplit(address).netloc
    }


@needs_chromium
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_the_report_of_the_demo_is_readable_and_complete(page, report, width, dark):
    page.open(report.as_uri(), width=width, dark=dark)
    check_page(page, width, dark)
    assert [url for url in page.requests if not url.startswith("data:")] == [report.as_uri()]
    assert page.evaluate(
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
    )
    assert page.evaluate("document.querySelectorAll('svg').length") >= 3


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from examples.cityscapes.commands.demo import demo

    out = tmp_path_factory.mktemp("demo") / "run"
    return demo(out=out, iterations=2, train_scenes=8, val_scenes=2, size=(32, 64))


def check_page(page, width, dark):
    """Fail on an error, on what is wider than the screen, and on text that cannot be read."""
    assert not page.errors
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate(TOO_WIDE) == []
    background, ink = page.evaluate(
        "[getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    )
    assert (luminance(background) < 0.2) == dark
    light, dim = sorted((luminance(background), luminance(ink)), reverse=True)
    assert (light + 0.05) / (dim + 0.05) > 7  # level AAA of the accessibility guidelines


def luminance(color):
    """Return the relative luminance of a CSS colour, as the accessibility guidelines define it."""
    channels = [int(value) / 255 for value in re.findall(r"\d+", color)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(k * c for k, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
