"""What search engines and people who share a link see: titles, descriptions and addresses."""

from xml.etree import ElementTree

import pytest
from bs4 import BeautifulSoup

import uncertainty_mtl
from tests.site.conftest import ADDRESSES, ROOT

ADDRESS = ADDRESSES["SITE_URL"] + "/"
NOT_PAGES = ("404.html", "search.html")


def parse(path):
    return BeautifulSoup(path.read_text(), "html.parser")


@pytest.fixture(scope="module")
def pages(site):
    """Return the parsed pages by their path within the site."""
    paths = {path.relative_to(site).as_posix(): path for path in site.rglob("*.html")}
    return {
        name: parse(path)
        for name, path in paths.items()
        if name not in NOT_PAGES and not name.startswith("_modules")
    }


def content(page, **attributes):
    tag = page.find("meta", attrs=attributes)
    return "" if tag is None else tag["content"]


def test_every_page_shows_the_version(pages):
    for name, page in pages.items():
        assert uncertainty_mtl.__version__ in page.find(class_="sidebar-brand").text, name
        assert uncertainty_mtl.__version__ in page.title.text, name


def test_every_page_has_its_own_description(pages):
    found = {name: content(page, name="description") for name, page in pages.items()}
    assert not [name for name, text in found.items() if len(text) < 20]
    assert all(content(page, property="og:description") for page in pages.values())


def test_every_page_names_its_address(pages):
    for name, page in pages.items():
        assert page.find("link", rel="canonical")["href"] == ADDRESS + name
        assert content(page, property="og:url") == ADDRESS + name


def test_a_shared_link_shows_title_and_picture(pages, site):
    page = pages["reference/heads.html"]
    assert content(page, property="og:title") == "Heads"
    picture = content(page, property="og:image")
    assert picture.startswith(ADDRESS)
    assert (site / picture.removeprefix(ADDRESS)).is_file()


def test_every_page_links_to_where_it_can_be_edited(pages):
    link = pages["how_to/resume.html"].find("a", rel="edit")["href"]
    assert link == f"{ADDRESSES['REPOSITORY_URL']}/edit/main/docs/how_to/resume.md"


def test_the_sitemap_lists_the_pages(pages, site):
    entries = ElementTree.parse(site / "sitemap.xml").findall(".//{*}loc")  # noqa: S314 - our own file
    assert {entry.text for entry in entries} == {ADDRESS + name for name in pages}


def test_a_missing_page_is_answered_with_links_that_work_at_any_depth(site):
    page = parse(site / "404.html")
    links = [a["href"] for a in page.find_all("a") if not a["href"].startswith(("#", "http"))]
    assert links
    for link in links:
        assert link.startswith("/uncertainty/"), link
        path = link.removeprefix("/uncertainty/").split("#")[0]
        assert (site / path).exists(), link


def test_every_result_of_the_benchmarks_is_a_page(pages):
    for result in (ROOT / "benchmarks" / "results").glob("*.md"):
        page = pages[f"measurements/results/{result.stem}.html"]
        title = result.read_text().splitlines()[0].removeprefix("# ")
        assert page.h1.text.replace("\u2019", "'").startswith(title)
