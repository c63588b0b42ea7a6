"""What a run shows while it goes on: a progress bar, and TensorBoard."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.protocols import PROTOCOLS
from examples.cityscapes.scene.colors import color_classes, color_disparity, color_instances
from examples.cityscapes.scene.maps import to_arrays
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.log import Line, MetricLog

QUANTITIES = ("loss", "nll", "sigma", "weight", "gradient_norm")


def progress_bar(config: TrainConfig, first: int, ranks: Ranks) -> tqdm:
    """Return a bar with throughput and time left, shown by one process."""
    return tqdm(
        total=config.iterations,
        initial=first,
        desc="training",
        unit="step",
        disable=not ranks.is_main,
    )


def show_progress(bar: tqdm, log: MetricLog, batch_size: int) -> None:
    """Advance the bar; the losses beside it are those last written."""
    with suppress(OSError):  # a terminal that was closed is not a reason to end a run
        bar.update()
    losses = log.latest.get("loss", {})
    shown = {task: f"{value:.3g}" for task, value in losses.items() if value is not None}
    if rate := bar.format_dict["rate"]:
        shown["images/s"] = f"{rate * batch_size:.1f}"
    bar.set_postfix(shown, refresh=False)


@contextmanager
def open_board(config: TrainConfig, first: int, ranks: Ranks) -> Iterator["Board | None"]:
    """Give the board of the first process; None if it is not wanted, or TensorBoard is missing."""
    if not (config.tensorboard and ranks.is_main):
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        print(
            "warning: tensorboard is not installed, so the run continues without it; "
            "metrics.jsonl has all figures",
            file=sys.stderr,
        )
        yield None
        return
    # `purge_step` hides what an interrupted run wrote after its last checkpoint.
    with SummaryWriter(config.out / "tensorboard", purge_step=first + 1) as writer:
        yield Board(writer, config.batch_size, PROTOCOLS[config.protocol].palette)


class Board:
    """Scalars and pictures of a run in TensorBoard's format.

    A step is the number of iterations that are done, for losses and for validations.

    Args:
        writer: A `SummaryWriter`.
        batch_size: Images per iteration, for the throughput.
        palette: Colours of the classes.
    """

    def __init__(self, writer: Any, batch_size: int, palette: np.ndarray) -> None:
        self.writer, self.batch_size, self.palette = writer, batch_size, palette
        self._since = time.monotonic()

    def add_lines(self, lines: list[Line]) -> None:
        """Add the lines that metrics.jsonl has just got."""
        for line in lines:
            step = line["iteration"] + 1
            self.writer.add_scalar("learning_rate", line["learning_rate"], step)
            for quantity in QUANTITIES:
                for name, value in line[quantity].items():
                    if value is not None:
                        self.writer.add_scalar(f"{quantity}/{name}", value, step)
        now = time.monotonic()
        rate = len(lines) * self.batch_size / max(now - self._since, 1e-9)
        self.writer.add_scalar("images_per_second", rate, step)
        self._since = now

    def add_validation(
        self,
        iteration: int,
        figures: dict[str, float | None],
        image: Tensor,
        maps: dict[str, Tensor],
    ) -> None:
        """Add the figures of a validation, and what the network makes of an image (1, 3, H, W)."""
        for name, value in figures.items():
            if value is not None:
                self.writer.add_scalar(f"validation/{name}", value, iteration)
        for name, picture in pictures(image, maps, self.palette).items():
            self.writer.add_image(f"pictures/{name}", picture, iteration, dataformats="HWC")
        self.writer.flush()


def pictures(image: Tensor, maps: dict[str, Tensor], palette: np.ndarray) -> dict[str, np.ndarray]:
    """Colour the first image of a batch and its predicted maps; each (H, W, 3), uint8."""
    arrays = to_arrays({task: values[:1].cpu() for task, values in maps.items()})
    colored = {"input": image[0].permute(1, 2, 0).cpu().numpy()}
    if "classes" in arrays:
        colored["classes"] = color_classes(arrays["classes"], palette)
    if "instances" in arrays:
        colored["instances"] = color_instances(arrays["instances"])
    if "inverse_depth" in arrays:
        disparity = arrays["inverse_depth"]
        colored["inverse_depth"] = color_disparity(disparity, float(disparity.max()))
    return colored
