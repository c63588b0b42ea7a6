"""The site builds without a warning, offline; it is complete, and works in a real browser."""

import ast
import functools
import http.server
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import uncertainty_mtl
from tests.site.browser import CHROMIUM, browser

ROOT = Path(__file__).parents[2]
PHONE, DESK = 390, 1280
SHOWN = [
    "index.html",
    "reference/heads.html",
    "explanation/derivation.html",
    "how_to/migrate.html",
    "examples/cityscapes.html",
    "how_to/what_to_monitor.html",
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

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on the path")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = ["-m", "sphinx", "-W", "-n", "--keep-going", "-q", str(ROOT / "docs"), str(out)]
    done = subprocess.run(  # noqa: S603
        [sys.executable, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _forget(request):
    if "page" in request.fixturenames:
        opened = request.getfixturevalue("page")
        opened.requests.clear()
        opened.errors.clear()


@pytest.fixture(scope="module")
def address(site):
    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Quiet, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def public_names():
    """Return ``__all__``, and the classes and functions of every module without an underscore."""
    names = {f"uncertainty_mtl.{name}" for name in uncertainty_mtl.__all__}
    package = Path(uncertainty_mtl.__file__).parent
    for path in package.rglob("[!_]*.py"):
        parts = path.relative_to(package.parent).with_suffix("").parts
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_":
                is_exported = node.name in uncertainty_mtl.__all__
                names.add(
                    ".".join(["uncertainty_mtl" if is_exported else ".".join(parts), node.name])
                )
    return names


def test_the_reference_describes_every_public_name(site):
    from sphinx.util.inventory import InventoryFile

    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    described = {
        name for kind, names in inventory.items() if kind.startswith("py:") for name in names
    }
    assert not sorted(public_names() - described)


def test_every_page_is_reached_from_the_contents(site):
    contents = (site / "index.html").read_text()
    for page in site.rglob("*.html"):
        name = page.relative_to(site).as_posix()
        if name not in ("index.html", "search.html"):
            assert name in contents


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
def test_the_search_finds_a_head(page, address):
    page.open(f"{address}/search.html?q=LaplaceHead")
    page.wait("document.querySelectorAll('#search-results li a').length > 0")
    links = page.evaluate("[...document.querySelectorAll('#search-results li a')].map(a => a.href)")
    assert any("reference/heads.html" in link for link in links)
    assert not page.errors


@needs_chromium
def test_formulas_are_typeset(page, address):
    page.open(f"{address}/explanation/derivation.html")
    sizes = page.evaluate(
        "[...document.querySelectorAll('math')].map(m => m.getBoundingClientRect())"
        ".map(r => [r.width, r.height])"
    )
    assert len(sizes) > 20
    assert all(width > 3 and height > 5 for width, height in sizes)
    # A fraction is much higher than its numerator: it is laid out, not printed as its source.
    ratios = page.evaluate(
        "[...document.querySelectorAll('mfrac')].map(f => [f, f.firstElementChild]"
        ".map(e => e.getBoundingClientRect().height)).map(([all, top]) => all / top)"
    )
    assert ratios
    assert min(ratios) > 1.5
    text = page.evaluate("document.querySelector('article').innerText")
    assert not re.search(r"\\(frac|tfrac|sigma|overline|log|mathrm)|\$", text)


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
