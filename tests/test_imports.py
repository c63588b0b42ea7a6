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
    "forms": set(),
    "_in_place": set(),
    "_parts": set(),
    "_cross_entropy": set(),
    "_chunks": {"_cross_entropy", "_in_place", "_parts"},
    "_errors": {"_in_place", "_parts"},
    "functional": {"_checks", "_chunks", "_cross_entropy", "_errors", "forms"},
    "task_head": {"_checks", "forms"},
    "heads": {"_checks", "forms", "functional", "task_head"},
    "heteroscedastic": {"_checks", "forms", "functional", "task_head"},
    "constraint": {"forms"},
    "collectives": {"forms"},
    "estimators": {"constraint", "forms", "task_head"},
    "_naming": {"_checks", "task_head"},
    "_measure": {"_checks", "_naming", "forms", "task_head"},
    "_reduced": {"_naming", "forms", "task_head"},
    "loss": {
        "_checks",
        "_measure",
        "_naming",
        "_reduced",
        "collectives",
        "constraint",
        "estimators",
        "forms",
        "heads",
        "task_head",
    },
    "calibration": {"_checks", "heads"},
    "history": {"_checks", "_naming", "loss"},
    "model_uncertainty": {"_checks", "loss", "task_head"},
    "integrations.tensorboard": {"history"},
    "integrations.lightning": {"history", "loss"},
    "integrations": set(),
    "": {
        "calibration",
        "forms",
        "functional",
        "heads",
        "heteroscedastic",
        "history",
        "loss",
        "model_uncertainty",
        "task_head",
    },
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


EXTRA = {"history": {"matplotlib"}, "integrations.lightning": {"lightning"}}
"""What is imported beside torch, and only by whoever asks for it."""


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("**/*.py")), ids=module)
def test_imports_run_in_one_direction_and_need_torch_alone(path):
    name = module(path)
    own = {other.split(".")[1] for other in imported(path) if other.startswith("uncertainty_mtl.")}
    assert own <= ALLOWED[name]
    assert list(ALLOWED).index(name) > max(
        (list(ALLOWED).index(other) for other in own), default=-1
    )
    others = {other.split(".")[0] for other in imported(path)} - {"uncertainty_mtl"}
    assert others - sys.stdlib_module_names <= {"torch"} | EXTRA.get(name, set())


def test_public_names_exist_and_are_documented():
    assert uncertainty_mtl.__all__ == sorted(uncertainty_mtl.__all__)
    for name in uncertainty_mtl.__all__:
        assert getattr(uncertainty_mtl, name).__doc__


def test_importing_the_library_imports_nothing_but_torch():
    extra = "{'torchvision', 'matplotlib', 'lightning', 'tensorboard'}"
    code = f"import sys, uncertainty_mtl; sys.exit(len({extra} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)  # noqa: S603


def test_importing_the_library_costs_little_beside_torch():
    # Processor time, which other processes on the machine do not lengthen. Measured: 20 ms.
    clock = "time.process_time()"
    code = f"import time, torch; a = {clock}; import uncertainty_mtl; print({clock} - a)"
    command = [sys.executable, "-c", code]

    def seconds() -> float:
        run = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
        return float(run.stdout)

    # Again only if it was slow: the first import after a change also compiles the sources.
    assert any(seconds() < 0.05 for _ in range(3))
