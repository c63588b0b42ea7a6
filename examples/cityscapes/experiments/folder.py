"""The folder of an experiment: what it was started with, and the scenes rendered into it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.protocols import PROTOCOLS
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError
from examples.common.lock import locked
from examples.common.records import read_object
from examples.rendered_scenes import synthesize

Setting = str | float | bool | None
Recorded = Setting | list[Setting] | dict[str, Setting]
"""A setting as experiment.json records it."""

_FREE = {"checkpoint_every", "tensorboard", "num_workers", "cache_mb"}
"""Settings that do not change the figures, and may change from one call to the next."""


@contextmanager
def experiment_folder(
    out: Path, command: str, settings: dict[str, Any], data: Path | None, scenes: dict[str, int]
) -> Iterator[Path]:
    """Create or reopen the folder, lock it for this process, and give the dataset.

    Args:
        out: The folder.
        command: Command of the experiment.
        settings: Every field of `TrainConfig` that the runs share.
        data: The dataset; None renders one into `out`.
        scenes: How many to render, as `train` and `val`.

    Raises:
        InputError: If the folder holds anything else, or was started with other settings.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    path = out / "experiment.json"
    if not path.exists() and out.is_dir() and any(p.name[0] != "." for p in out.iterdir()):
        raise InputError(f"--out: {out} holds something other than an experiment")
    if data is not None:  # now, not in every run
        protocol = PROTOCOLS[settings["protocol"]]
        for split in ("train", "val"):
            CityscapesDataset(data, split, settings["size"], protocol.tasks, protocol=protocol)
    asked = {
        "command": command,
        "data": None if data is None else str(data.resolve()),
        "scenes": scenes if data is None else None,
        **{name: value for name, value in settings.items() if name not in _FREE},
    }
    asked = json.loads(json.dumps(asked))  # tuples become lists, as in what was recorded
    with locked(out):
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            way_out = "choose another folder, or delete this one"
            recorded = read_object(path, dict[str, Recorded], way_out)
            check_same(out, {**_unrecorded(), **recorded}, asked)
        else:
            write_atomically(path, json.dumps(asked, indent=2) + "\n")
        if data is None and not (out / "scenes").exists():
            _render(out, scenes, settings)
        yield data or out / "scenes"


def _render(out: Path, scenes: dict[str, Any], settings: dict[str, Any]) -> None:
    try:
        synthesize(out / "scenes", **scenes, size=settings["size"], seed=0)
    except InputError:  # a size that cannot be rendered, or the like: nothing was started
        (out / "experiment.json").unlink()
        with suppress(OSError):  # the folder may be a mounted disk, or still hold its lock
            out.rmdir()
        raise


def _unrecorded() -> dict[str, Any]:
    """Return the settings that were added later, with the values that older experiments had."""
    return {"protocol": TrainConfig.protocol, "temperature": TrainConfig.temperature}


def check_same(out: Path, recorded: dict[str, Any], asked: dict[str, Any]) -> None:
    """Raise if an experiment would go on with other settings."""
    changes = [
        f"{name} was {recorded.get(name)!r} and is now {asked.get(name)!r}"
        for name in (*recorded, *(name for name in asked if name not in recorded))
        if recorded.get(name) != asked.get(name)
    ]
    if changes:
        raise InputError(
            f"--out: {out} holds an experiment with other settings: {'; '.join(changes)}. Choose "
            "another folder, or give the former settings"
        )
