"""A run, and how it is saved: every now and then, and before anything ends it."""

import time
from typing import NamedTuple

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.training.board import Board
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.log import MetricLog
from examples.cityscapes.training.state import Progress, TrainingState, snapshot
from examples.common.checkpoint import save_checkpoint
from examples.common.errors import OtherProcessError


class Run(NamedTuple):
    """Everything that stays the same object during training."""

    config: TrainConfig
    ranks: Ranks
    dataset: CityscapesDataset
    val: CityscapesDataset | None
    """The validation split; None if training runs without validation."""
    state: TrainingState
    log: MetricLog
    board: Board | None
    signals: list[int]
    """The signals that have asked this process to stop."""
    deadline: float | None
    """When it has to stop, in the time of `time.monotonic()`."""

    def is_asked_to_stop(self) -> bool:
        """Whether this process has been asked to stop."""
        return bool(self.signals) or (
            self.deadline is not None and time.monotonic() > self.deadline
        )


def is_to_save(progress: Progress, config: TrainConfig) -> bool:
    """Whether a checkpoint is due."""
    is_last = progress.iteration == config.iterations
    return is_last or progress.iteration % config.checkpoint_every == 0


def save(progress: Progress, run: Run, name: str) -> None:
    """Write a checkpoint; every process has to call this, as each adds its random state.

    Raises:
        NonFiniteLossError: If the weights are not worth saving.
    """
    run.log.flush()
    contents = snapshot(run.state, progress, run.config, run.dataset.frames, run.ranks)
    if run.ranks.is_main:
        save_checkpoint(run.config.out / name, contents)


def save_and_stop(progress: Progress, run: Run, problem: Exception | None) -> int:
    """Save what is done, then raise the problem that ends training, here or in another process."""
    try:
        if progress.iteration:
            save(progress, run, "last.pt")
    except Exception:
        if problem is None:
            raise  # otherwise `problem` is the cause, and is raised below
    if run.ranks.any(problem is not None):
        raise problem or OtherProcessError
    return progress.iteration
