"""The shape of the package: what is public, how long files are, and who may import whom."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import uncertainty_mtl

PACKAGE = Path(uncertainty_mtl.__file__).parent

READING_ORDER = [
    "_checks",
    "forms",
    "elements",
    "chunks",
    "functional",
    "parameters",
    "task_head",
    "heads",
    "classification",
    "heteroscedastic",
    "_tasks",
    "options",
    "inputs",
    "collectives",
    "entries",
    "constraint",
    "start_from_data",
    "estimators",
    "result",
    "weighed_tasks",
    "loss",
    "history",
    "calibration",
    "model_uncertainty",
    "__init__",
    "integrations.__init__",
    "integrations.tensorboard",
    "integrations.lightning",
]
"""The files of the library in the order to read them in: each imports only from those above it."""

ALSO_IMPORTED = {"history": {"matplotlib"}, "integrations.lightning": {"lightning"}}
"""What is imported beside torch, by those who ask for it."""

NOT_PUBLIC_IN_TORCH = {"_modules", "_parameters", "_version"}


def module(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


TREES = {module(path): ast.parse(path.read_text()) for path in sorted(PACKAGE.rglob("*.py"))}
every_module = pytest.mark.parametrize("name", TREES)


def imported(tree: ast.AST) -> set[str]:
    """Return what is imported, by full name; of the library, modules and the names in them."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def offences(tree: ast.AST) -> list[str]:
    """Return which internals of torch a source uses."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    names = [ast.unparse(node) for node in attributes] + sorted(imported(tree))
    return [
        name
        for name in names
        if name.startswith(("torch.ops.aten", "torch._C"))
        or name.split(".")[-1] in NOT_PUBLIC_IN_TORCH
    ]


def test_the_reading_order_holds_every_file():
    assert sorted(READING_ORDER) == sorted(TREES)


@every_module
def test_imports_run_down_the_reading_order(name):
    above = READING_ORDER[: READING_ORDER.index(name)]
    own = [other for other in imported(TREES[name]) if other.startswith("uncertainty_mtl.")]
    for other in own:
        parts = other.removeprefix("uncertainty_mtl.").split(".")
        # A module, or a name in one.
        assert ".".join(parts) in above or ".".join(parts[:-1]) in above, other


@every_module
def test_a_file_imports_torch_and_the_standard_library(name):
    roots = {other.split(".")[0] for other in imported(TREES[name])}
    allowed = {"torch", "uncertainty_mtl"} | ALSO_IMPORTED.get(name, set())
    assert roots - sys.stdlib_module_names <= allowed


@every_module
def test_a_file_uses_no_internals_of_torch(name):
    assert offences(TREES[name]) == []


@pytest.mark.parametrize(
    "source",
    [
        "torch.ops.aten.add(x, y)",
        "torch._C._get_tracing_state()",
        "from torch._C import _get_tracing_state",
        "import torch._C",
        "module._modules['depth']",
        "self.head._parameters",
        "log_var._version == 3",
    ],
)
def test_an_offence_would_be_found(source):
    assert offences(ast.parse(source))


def test_foreach_operations_are_no_offence():
    assert offences(ast.parse("torch._foreach_clamp_min_(tensors, 0.0)")) == []


@every_module
def test_no_file_is_above_300_lines(name):
    path = PACKAGE / f"{name.replace('.', '/')}.py"
    assert len(path.read_text().splitlines()) <= 300


def test_at_most_two_modules_are_private():
    private = [name for name in TREES if name.split(".")[-1].startswith("_")]
    assert len([name for name in private if not name.endswith("__init__")]) <= 2


def test_public_names_exist_and_are_documented():
    assert uncertainty_mtl.__all__ == sorted(uncertainty_mtl.__all__)
    for name in uncertainty_mtl.__all__:
        assert getattr(uncertainty_mtl, name).__doc__


def test_importing_the_library_imports_nothing_but_torch():
    extra = "{'torchvision', 'matplotlib', 'lightning', 'tensorboard'}"
    code = f"import sys, uncertainty_mtl; sys.exit(len({extra} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603
