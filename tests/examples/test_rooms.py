"""The rooms of the CityScapes example: each imports only from those below it."""

import ast
from collections import Counter
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "cityscapes"
ROOMS = [
    "labels",
    "protocols",
    "presets",
    "settings",
    "weighting",
    "config",
    "flags",
    "data",
    "model",
    "scene",
    "evaluation",
    "training",
    "report",
    "commands",
    "experiments",
    "__main__",
]
"""From the ground up. What both examples need, and the renderer, are below all of them."""


def imported_rooms(path: Path) -> set[str]:
    """Return the rooms of the example that a file imports from."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if hasattr(node, "module")]
    modules = [(node.module or "").split(".") for node in nodes]
    return {
        m[2] if len(m) > 2 else "__init__" for m in modules if m[:2] == ["examples", "cityscapes"]
    }


@pytest.mark.parametrize("path", sorted(EXAMPLE.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_go_down(path):
    room = path.relative_to(EXAMPLE).parts[0].removesuffix(".py")
    allowed = [] if room == "__init__" else ROOMS[: ROOMS.index(room) + 1]
    assert imported_rooms(path) <= set(allowed)


def test_a_name_means_one_thing():
    sources = [p for top in ("benchmarks", "examples", "uncertainty_mtl") for p in all_files(top)]
    modules = Counter(path.stem for path in sources if not path.stem.startswith("__"))
    nodes = [node for path in sources for node in ast.walk(ast.parse(path.read_text()))]
    classes = Counter(node.name for node in nodes if isinstance(node, ast.ClassDef))
    assert [name for name, count in (modules + classes).items() if count > 1] == []


def all_files(top):
    return sorted((EXAMPLE.parents[1] / top).rglob("*.py"))
