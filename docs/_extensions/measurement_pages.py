"""Makes a page of every result in `benchmarks/results`, and points the links of the site to it."""

import re
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

PAGES = "measurements/results"
LINK = re.compile(r"\]\((?:\.\./)*benchmarks/results/([\w.-]+\.md)\)")


def write_pages(app: Sphinx, config: Config) -> None:
    """Write a page per result, which includes it, and remove those of results that are gone."""
    del config
    results = Path(app.srcdir).parent / "benchmarks" / "results"
    pages = Path(app.srcdir) / PAGES
    pages.mkdir(parents=True, exist_ok=True)
    wanted = {path.name for path in results.glob("*.md")}
    for name in wanted:
        text = f"```{{include}} ../../../benchmarks/results/{name}\n:relative-images:\n```\n"
        page = pages / name
        # An unchanged page keeps its date, so that Sphinx does not read it again.
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
    for page in pages.glob("*.md"):
        if page.name not in wanted:
            page.unlink()


def link_to_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """Point links to a result's file, which work in the repository, to the page made of it."""
    del app
    up = "../" * name.count("/")
    source[0] = LINK.sub(rf"]({up}{PAGES}/\1)", source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx looks for them."""
    app.connect("config-inited", write_pages)
    app.connect("source-read", link_to_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
