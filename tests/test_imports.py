"""Who may import whom, and what is public."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import uncertainty_mtl

PACKAGE = Path(uncertainty_mtl.__file__).parent

ALLOWED = {
    "_checks": set(),
    "functional": {"_checks"},
    "heads": {"_checks", "functional"},
    "loss": {"_checks", "functional", "heads"},
    "__init__": {"functional", "heads", "loss"},
}
"""The library in reading order: each file imports only from those above it."""


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if node.module == "uncertainty_mtl":
                names |= {f"uncertainty_mtl.{alias.name}" for alias in node.names}
            else:
                names.add(node.module)
    return names


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("**/*.py")), ids=lambda path: path.stem)
def test_imports_run_in_one_direction_and_need_torch_alone(path):
    own = {name.split(".")[1] for name in imported(path) if name.startswith("uncertainty_mtl.")}
    assert own <= ALLOWED[path.stem]
    others = {name.split(".")[0] for name in imported(path)} - {"uncertainty_mtl"}
    assert others - sys.stdlib_module_names <= {"torch"}


def test_public_names_exist_and_are_documented():
    assert uncertainty_mtl.__all__ == sorted(uncertainty_mtl.__all__)
    for name in uncertainty_mtl.__all__:
        assert getattr(uncertainty_mtl, name).__doc__


def test_importing_the_library_imports_no_torchvision():
    code = "import sys, uncertainty_mtl; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
