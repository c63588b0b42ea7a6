"""The reference describes every public name and member, and links to sources and to PyTorch."""

import ast
import inspect
import zlib
from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from sphinx.util.inventory import InventoryFile
from torch import nn

import uncertainty_mtl
from tests.site.conftest import ADDRESSES, ROOT, run_sphinx


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


@pytest.fixture(scope="module")
def described(site):
    with (site / "objects.inv").open("rb") as file:
        inventory = InventoryFile.load(file, "", lambda base, path: path)
    return {name for kind, names in inventory.items() if kind.startswith("py:") for name in names}


def test_the_reference_describes_every_public_name(described):
    assert not sorted(public_names() - described)


def test_a_class_is_described_with_the_members_that_it_inherits(described):
    assert {
        "uncertainty_mtl.LaplaceHead.sigma",
        "uncertainty_mtl.LaplaceHead.weight",
        "uncertainty_mtl.LaplaceHead.freeze",
        "uncertainty_mtl.UncertaintyWeightedLoss.__getitem__",
        "uncertainty_mtl.UncertaintyWeightedLoss.__iter__",
    } <= described
    missing = []
    for name in uncertainty_mtl.__all__:
        cls = getattr(uncertainty_mtl, name)
        if inspect.isclass(cls) and issubclass(cls, nn.Module):
            members = [
                member
                for member in dir(cls)
                if member[0] != "_"
                and callable(getattr(cls, member))
                and not hasattr(nn.Module, member)
            ]
            missing += [m for m in members if f"uncertainty_mtl.{name}.{m}" not in described]
    assert not missing


@pytest.mark.parametrize(
    ("page", "name", "line"),
    [
        ("heads.html", "uncertainty_mtl.TaskHead.freeze", "log_var.requires_grad_(not frozen)"),
        ("loss.html", "uncertainty_mtl.UncertaintyWeightedLoss", "def param_groups("),
    ],
)
def test_what_is_described_links_to_its_source(site, page, name, line):
    reference = BeautifulSoup((site / "reference" / page).read_text(), "html.parser")
    link = reference.find("dt", id=name).find(class_="viewcode-link").parent["href"]
    module, anchor = link.split("#")
    source = BeautifulSoup((site / "reference" / module).read_text(), "html.parser")
    assert line in source.find(id=anchor).text


def test_a_build_that_requires_links_fails_without_a_network(tmp_path):
    (tmp_path / "index.md").write_text("# A page\n")
    no_network = {"https_proxy": "http://127.0.0.1:1", "HTTPS_PROXY": "http://127.0.0.1:1"}
    arguments = [
        "-c",
        ROOT / "docs",
        "-b",
        "dummy",
        "-W",
        "--keep-going",
        tmp_path,
        tmp_path / "out",
    ]
    strict = run_sphinx(*arguments, REQUIRE_LINKS="1", **no_network)
    assert strict.returncode != 0
    assert "docs.pytorch.org" in strict.stderr
    lenient = run_sphinx(*arguments, **no_network)
    assert lenient.returncode == 0, lenient.stderr
    assert "docs.pytorch.org" in lenient.stderr


def test_types_of_pytorch_link_to_its_pages(tmp_path):
    (tmp_path / "conf.py").write_text(
        f"from runpy import run_path\n"
        f"globals().update(run_path({str(ROOT / 'docs' / 'conf.py')!r}))\n"
        "html_static_path, html_favicon = [], None\n"
        "intersphinx_mapping['torch'] = ('https://docs.pytorch.org/docs/stable', 'torch.inv')\n"
    )
    (tmp_path / "index.rst").write_text(
        "A page\n======\n\n.. autofunction:: uncertainty_mtl.functional.mean_nll\n"
    )
    write_inventory(tmp_path / "torch.inv", "torch.Tensor", "tensors.html#$")
    done = run_sphinx(tmp_path, tmp_path / "out", **ADDRESSES)
    assert done.returncode == 0, done.stderr
    link = "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor"
    assert f'href="{link}"' in (tmp_path / "out" / "index.html").read_text()


def write_inventory(path, name, uri):
    """Write the list of pages of a project, in the format that Sphinx publishes, by hand."""
    head = "# Sphinx inventory version 2\n# Project: torch\n# Version: 2\n"
    head += "# The remainder of this file is compressed using zlib.\n"
    path.write_bytes(head.encode() + zlib.compress(f"{name} py:class 1 {uri} -\n".encode()))
