"""How Sphinx builds the site. `make docs` treats every warning as an error."""

import sys
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import uncertainty_mtl  # noqa: E402 - the package of this working tree, installed or not

project = "uncertainty_mtl"
author = "The uncertainty_mtl developers"
copyright = f"2026, {author}"
release = uncertainty_mtl.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "mathml",
    "measured_figures",
]
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
autodoc_mock_imports = ["lightning", "torch.utils.tensorboard"]  # large, and no part of `docs`
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_custom_sections = ["Shape"]
napoleon_use_ivar = True

html_theme = "furo"
html_title = "uncertainty_mtl"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/icon.svg"
pygments_style = "default"  # whose added lines are green and removed ones red
html_math_renderer = "mathml"
html_show_sphinx = False
html_show_sourcelink = False
html_copy_source = False
html_use_index = False  # the reference is one, and its tables are wider than a phone
html_domain_indices = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True

NEIGHBOURS = {
    "python": ("https://docs.python.org/3", r"(abc|collections|enum|os|pathlib|typing)\..*"),
    "torch": ("https://docs.pytorch.org/docs/stable", r"torch(\..*)?"),
    "lightning": ("https://lightning.ai/docs/pytorch/stable", r"lightning(\..*)?"),
}
"""Projects that the reference links to, and the names that are theirs."""


def inventory(url: str, name: str) -> str | None:
    """Return the file that lists a project's pages, fetched once; None without a network."""
    path = HERE / "_build" / "inventories" / f"{name}.inv"
    if not path.exists():
        try:
            with urllib.request.urlopen(f"{url}/objects.inv", timeout=5) as answer:  # noqa: S310
                content = answer.read()
        except OSError:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(path)


intersphinx_mapping = {
    name: (url, path)
    for name, (url, _) in NEIGHBOURS.items()
    if (path := inventory(url, name)) is not None
}
# A name of theirs may stay without a link: their inventory may be out of reach, and it knows only
# the public path of what an annotation names by the private one. Never a name of ours.
nitpick_ignore_regex = [(r"py:.*", names) for _, names in NEIGHBOURS.values()]
# Named in the signature of a class that is described; private itself.
nitpick_ignore = [("py:class", "uncertainty_mtl._tasks.HeadsByName")]
