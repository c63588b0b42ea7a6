"""Reading a file never runs code that it holds: no pickle and no unsafe load in any source."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = [
    path
    for folder in ("uncertainty_mtl", "examples", "benchmarks", "docs")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
PICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


def offences(source: str) -> list[str]:
    """Return what in ``source`` could run code that a file holds."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module in PICKLERS:
            used = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in PICKLERS:
            used = [node.attr]
        else:
            used = []
        # The error is what a file that is not safe ends in, under `weights_only=True`.
        found += [f"{node.lineno}: {name}" for name in used if name != "UnpicklingError"]
        if isinstance(node, ast.Call):
            options = {k.arg: ast.unparse(k.value) for k in node.keywords}
            name = ast.unparse(node.func)
            loads_unsafely = name == "torch.load" and options.get("weights_only") != "True"
            if loads_unsafely or options.get("allow_pickle") == "True" or name in ("eval", "exec"):
                found.append(f"{node.lineno}: {ast.unparse(node)}")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_unpickles(path):
    assert offences(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle\npickle.loads(data)",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
    ],
)
def test_an_offence_would_be_found(source):
    assert len(offences(source)) == 1
