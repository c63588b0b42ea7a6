"""Where a report comes from: its runs, their data, when, and which versions wrote it."""

import platform
from datetime import datetime
from pathlib import Path

import torch

import uncertainty_mtl
from examples.cityscapes.config import TrainConfig


def about(
    configs: dict[str, TrainConfig], data: Path | None, *, rendered: bool = False
) -> list[tuple[str, str]]:
    """Return the title and the value of each line.

    Args:
        configs: The configuration of every run by its name.
        data: The dataset of the pictures; None for a page without.
        rendered: Whether the page is the demo's. Its folders have not reached their place when it
            is written, so that only their names are shown.
    """

    def shown(path: Path) -> str:
        return path.name if rendered else str(path.absolute())

    lines = []
    for name, config in configs.items():
        title = "run" if len(configs) == 1 else f"run with {name}"
        lines.append((title, shown(config.out)))
        log = config.out / "metrics.jsonl"
        if log.is_file():
            lines.append(("last trained", _when(datetime.fromtimestamp(log.stat().st_mtime))))
    used = [config.data for config in configs.values()]
    lines += [("data set", shown(path)) for path in dict.fromkeys(used)]
    if data is not None and data.absolute() not in {path.absolute() for path in used}:
        lines.append(("data set of the pictures", shown(data)))
    lines.append(("page written", _when(datetime.now())))
    versions = {
        "uncertainty_mtl": uncertainty_mtl.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
    }
    lines.append(("by", ", ".join(f"{name} {version}" for name, version in versions.items())))
    return lines


def _when(time: datetime) -> str:
    return f"{time.astimezone():%Y-%m-%d %H:%M}"
