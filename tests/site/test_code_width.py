"""No code on the site has to be scrolled sideways on a screen of 1280 pixels."""

import html
import inspect
import re
from pathlib import Path

import pytest

import uncertainty_mtl
from tests.site.browser import needs_chromium
from tests.site.conftest import ROOT

COLUMNS = 80
FENCE = re.compile(r"^( *)```(.*?)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
PAGES = [
    ROOT / "README.md",
    ROOT / "benchmarks" / "README.md",
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in p.parts),
]
MODULES = sorted(Path(uncertainty_mtl.__file__).parent.rglob("*.py"))


def too_long(text):
    return [line for line in text.splitlines() if len(line) > COLUMNS]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_code_of_a_page_keeps_to_80_columns(page):
    fences = FENCE.finditer(page.read_text())
    blocks = [match[3] for match in fences if not match[2].startswith("{")]  # no directives
    assert not [line for block in blocks for line in too_long(inspect.cleandoc(block))]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_examples_of_a_docstring_keep_to_80_columns(module):
    lines = [line.strip() for line in module.read_text().splitlines()]
    assert not [line for line in lines if line.startswith((">>>", "...")) and too_long(line)]


def widest_code(path):
    blocks = re.findall(r"<pre>(.*?)</pre>", path.read_text(), re.DOTALL)
    lines = [html.unescape(re.sub("<.*?>", "", x)) for block in blocks for x in block.splitlines()]
    return max(map(len, lines), default=0)


@needs_chromium
def test_no_code_scrolls_sideways_on_a_desk(page, site):
    # The sources of the library are shown as they are, with up to 100 columns.
    paths = [path for path in site.rglob("*.html") if "_modules" not in path.parts]
    for path in sorted(paths, key=widest_code)[-10:]:
        page.open(path.as_uri(), width=1280)
        found = page.evaluate(
            "[...document.querySelectorAll('pre')]"
            ".filter(block => block.scrollWidth > block.clientWidth + 1)"
            ".map(block => block.textContent.slice(0, 60))"
        )
        assert not found, path
