"""What is trained for an experiment, and the settings that all of its trainings share."""

import math
from pathlib import Path
from typing import Any, NamedTuple

from examples.cityscapes.config import TrainConfig, new_config
from examples.cityscapes.protocols import PROTOCOLS, THREE_TASK
from examples.cityscapes.weighting import overridden

DECIDED = ("out", "data", "labels", "tasks", "weighting", "seed")
"""The fields of `TrainConfig` that differ between the trainings, or with the folder."""


class Training(NamedTuple):
    """What distinguishes one training from the others of its experiment, except for the seed."""

    tasks: tuple[str, ...]
    weighting: str
    log_var_init: float | None = None
    """Start of log sigma^2 of every task; None leaves it to the settings."""
    variant: str = ""
    """A name for the changes, as part of a file name."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Fields of `TrainConfig` that differ from the rest of the experiment."""

    @property
    def name(self) -> str:
        """The name of the training, which can be part of a file name."""
        weighting = self.weighting.replace(":", "_").replace(",", "_")
        start = "" if self.log_var_init is None else f"_from_{self.log_var_init:g}"
        variant = f"_{self.variant}" if self.variant else ""
        return "+".join(self.tasks) + f"_{weighting}{start}{variant}"


def config_of(
    training: Training, seed: int, settings: dict[str, Any], data: Path, runs: Path
) -> TrainConfig:
    """Return the configuration of a run.

    Args:
        training: What to train.
        seed: Seed of the run.
        settings: All fields of `TrainConfig` but those in `DECIDED`. A training goes without those
            about sigma that have no effect on it.
        data: The dataset.
        runs: The folder of all runs.
    """
    own = {
        **dict(training.changes),
        "data": data,
        "out": runs / f"{training.name}_seed{seed}",
        "tasks": training.tasks,
        "weighting": training.weighting,
        "seed": seed,
    }
    if training.log_var_init is not None:
        own["sigma_init"] = f"{math.exp(training.log_var_init / 2):.12g}"
    return new_config(overridden(settings, own))


def shared_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return every field that the trainings share, with the values that the preset decides."""
    tasks = PROTOCOLS[settings.get("protocol", THREE_TASK.name)].tasks
    config = new_config({**settings, "data": Path("data"), "out": Path("runs"), "tasks": tasks})
    return {name: value for name, value in vars(config).items() if name not in DECIDED}
