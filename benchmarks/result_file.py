"""What a benchmark found, and how to find it again: one Markdown file per run."""

import datetime
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks.run_settings import Settings

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("torch", "torchvision", "torchjd", "numpy", "scikit-learn", "pillow")


class Goal(NamedTuple):
    """A number that was aimed at, beside the one that was measured."""

    what: str
    limit: float
    measured: float
    at_least: bool = False
    """Whether more is better."""

    @property
    def met(self) -> bool:
        """Whether the measured number is on the right side of the limit; nan never is."""
        if self.at_least:
            return self.measured >= self.limit
        return self.measured <= self.limit

    def __str__(self) -> str:
        sign = "at least" if self.at_least else "at most"
        verdict = "met" if self.met else "**not met**"
        return f"| {self.what} | {sign} {self.limit:g} | {self.measured:.4g} | {verdict} |"


@dataclass(frozen=True)
class Table:
    """One table, with what its numbers are."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Report:
    """What a benchmark returns."""

    title: str
    about: str
    """What was measured and how, including what was warmed up and how often it was repeated."""
    tables: Sequence[Table]
    goals: Sequence[Goal] = field(default_factory=list)
    notes: Sequence[str] = field(default_factory=list)
    """What a reader could not guess: what was left out, and why."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """What belongs beside the result, by the end of its name: `png`."""


def markdown(report: Report, recipe: dict[str, str]) -> str:
    """Return the text of a result file."""
    parts = [f"# {report.title}", report.about]
    for table in report.tables:
        parts += [f"## {table.title}", _table(table.columns, table.rows)]
    if report.goals:
        header = "| goal | limit | measured | |\n|---|---|---|---|"
        parts += ["## Goals", "\n".join([header, *map(str, report.goals)])]
    if report.notes:
        parts.append("\n".join(f"- {note}" for note in report.notes))
    parts += ["## Recipe", "\n".join(f"- {name}: {value}" for name, value in recipe.items())]
    return "\n\n".join(parts) + "\n"


def describe_run(
    command: str, settings: Settings, load: tuple[float, float, float]
) -> dict[str, str]:
    """Return everything that a reader needs to repeat a run.

    Args:
        command: As it was typed.
        settings: Of the run.
        load: Of the machine before the run started: other programs on it.
    """
    recipe = {
        "command": f"`{command}`",
        "commit": _commit(),
        "versions": ", ".join([f"Python {platform.python_version()}", *_versions()]),
        "hardware": f"{cpu_model()}, {_usable_cores()} cores",
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
    """Return where a result goes; a quick one stands beside a full one, never in its place."""
    suffix = "" if effort == "full" else f"_{effort}"
    return RESULTS / f"{datetime.date.today().isoformat()}_{name}{suffix}.md"


def write_result(path: Path, content: bytes) -> None:
    """Write a result file as a whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.part")
    partial.write_bytes(content)
    partial.replace(path)


def cpu_model() -> str:
    """Return the name of the processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions() -> list[str]:
    return [f"{name} {version(name)}" for name in _PACKAGES if _is_installed(name)]


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _commit() -> str:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603

    try:
        # Results of runs before this one do not change what runs.
        but = ":(top,exclude)benchmarks/results"
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", but)
        return git("rev-parse", "--short", "HEAD") + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown (no git here)"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
