"""How Sphinx builds the site. `make docs` treats every warning as an error."""

import os
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # which Sphinx installs on Python 3.10

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import uncertainty_mtl  # noqa: E402 - the package of this working tree, installed or not

project = "uncertainty_mtl"
author = "The uncertainty_mtl developers"
copyright = f"2026, {author}"
release = uncertainty_mtl.__version__

with (HERE.parent / "pyproject.toml").open("rb") as file:
    URLS = tomllib.load(file)["project"].get("urls", {})
# Whoever publishes the site says where: in pyproject.toml, or in the environment of the build.
# Without an address there is no sitemap and no canonical link, without a repository no edit link.
SITE = os.environ.get("SITE_URL") or URLS.get("Documentation", "")
REPOSITORY = os.environ.get("REPOSITORY_URL") or URLS.get("Repository", "")

extensions = [
    "myst_parser",
    "notfound.extension",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinxext.opengraph",
    "mathml",
    "measurement_pages",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# What every class has from PyTorch or Python is described there.
BASES_OF_OTHERS = "Module, Callback, ABC, Generic, tuple, object"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "inherited-members": BASES_OF_OTHERS,
}
autodoc_typehints = "signature"
autodoc_mock_imports = ["lightning", "torch.utils.tensorboard"]  # large, and no part of `docs`
python_maximum_signature_line_length = 72
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]
napoleon_use_ivar = True

html_theme = "furo"
html_title = f"uncertainty_mtl {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
html_search_scorer = str(HERE / "search_scorer.js")
pygments_style = "default"  # whose added lines are green and removed ones red
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_use_index = False  # the reference is one, and its tables are wider than a phone
html_domain_indices = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

ogp_site_name = project
ogp_image = "_images/weights.png"
ogp_image_alt = "The losses of two tasks fall, and their weights follow."
ogp_enable_meta_description = True
ogp_social_cards = {"enable": False}

notfound_context = {
    "title": "Page not found",
    "body": "<h1>Page not found</h1>\n<p>There is no page at this address. It may have moved: "
    "the search and the menu list every page.</p>",
}
html_theme_options = {}
if SITE:
    html_baseurl = ogp_site_url = SITE.rstrip("/") + "/"
    notfound_urls_prefix = urlsplit(html_baseurl).path
    extensions.append("sphinx_sitemap")
    sitemap_url_scheme = "{link}"
    sitemap_excludes = ["404.html", "search.html", "_modules/*"]
else:
    notfound_urls_prefix = "/"
if REPOSITORY:
    html_theme_options |= {
        "source_repository": REPOSITORY,
        "source_branch": "main",
        "source_directory": "docs/",
    }

NEIGHBOURS = {
    "python": ("https://docs.python.org/3", r"(abc|collections|enum|os|pathlib|typing)\..*"),
    "torch": ("https://docs.pytorch.org/docs/stable", r"torch(\..*)?"),
    "lightning": ("https://lightning.ai/docs/pytorch/stable", r"lightning(\..*)?"),
}
"""Projects that the reference links to, and the names that are theirs."""


def is_reachable(url: str) -> bool:
    """Return whether the list of a project's pages can be fetched."""
    try:
        with urllib.request.urlopen(f"{url}/objects.inv", timeout=5):  # noqa: S310
            return True
    except OSError:
        return False


intersphinx_mapping = {name: (url, None) for name, (url, _) in NEIGHBOURS.items()}
# The published site has to have these links: there Sphinx itself warns of a page that it cannot
# fetch, and the build fails. Elsewhere the site can be built without a network.
if not os.environ.get("REQUIRE_LINKS"):
    for name, (url, _) in NEIGHBOURS.items():
        if not is_reachable(url):
            print(f"{url} cannot be reached: the site will not link to it.", file=sys.stderr)
            del intersphinx_mapping[name]
# A name of theirs may stay without a link: their list may be out of reach, and it has only the
# public path of what an annotation names by the private one. Never a name of ours.
nitpick_ignore_regex = [(r"py:.*", names) for _, names in NEIGHBOURS.values()]
# Named in the signature of a class that is described; private itself.
nitpick_ignore = [("py:class", "uncertainty_mtl._tasks.HeadsByName")]


def skip_bare_fields(app, what, name, obj, skip, options):
    """Leave out fields of named tuples that have no text of their own."""
    return skip or (getattr(obj, "__doc__", None) or "").startswith("Alias for field number")


def setup(app):
    """Connect what is above."""
    app.connect("autodoc-skip-member", skip_bare_fields)
