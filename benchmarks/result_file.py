"""The result of a benchmark as one Markdown file, with the recipe to repeat it."""

import datetime
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.run_settings import Settings
from examples.cityscapes.experiments.recipe import commit, processor

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("torch", "torchvision", "torchjd", "numpy", "scikit-learn", "pillow")


class Table(NamedTuple):
    """A table of the result."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Report:
    """What a benchmark returns."""

    title: str
    about: str
    """What was measured and how, including the warm-up and the number of repeats."""
    tables: Sequence[Table]
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    """Further files beside the result, by the ending of their names, such as `png`."""


def markdown(report: Report, recipe: dict[str, str]) -> str:
    """Return the text of a result file."""
    parts = [f"# {report.title}", report.about]
    for table in report.tables:
        lines = [table.columns, ["---"] * len(table.columns), *table.rows]
        text = "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
        parts += [f"## {table.title}", text]
    parts += ["## Recipe", "\n".join(f"- {name}: {value}" for name, value in recipe.items())]
    return "\n\n".join(parts) + "\n"


def describe_run(command: str, settings: Settings, load: Sequence[float]) -> dict[str, str]:
    """Return what a reader needs to repeat a run; `load` is that of the machine before the run."""
    installed = {package.name: package.version for package in distributions()}
    versions = [f"{name} {installed[name]}" for name in PACKAGES if name in installed]
    recipe = {
        "command": f"`{command}`",
        "commit": commit() or "unknown (no git here)",
        "versions": ", ".join([f"Python {platform.python_version()}", *versions]),
        "hardware": f"{processor()}, {os.cpu_count()} cores",
        "threads": f"{torch.get_num_threads()} of torch",
        "load before": f"{load[0]:.2f} (mean number of running programs over the last minute)",
        "seed": str(settings.seed),
    }
    if settings.device.type == "cuda":
        recipe["hardware"] += f"; {torch.cuda.get_device_name(settings.device)}"
        recipe["versions"] += f", CUDA {torch.version.cuda}"
    if settings.effort != "full":
        recipe["effort"] = f"{settings.effort}: too few repeats to be quoted"
    return recipe


def result_path(name: str, effort: str) -> Path:
    """Return where a result goes; only a full one has the plain name."""
    suffix = "" if effort == "full" else f"_{effort}"
    return RESULTS / f"{datetime.date.today().isoformat()}_{name}{suffix}.md"
