"""The logs and the figures of a run, as far as a report can show them."""

import sys
from pathlib import Path
from typing import Any, TypedDict

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.labels import CLASS_NAMES
from examples.cityscapes.training.log import Line, LogLine, training_line
from examples.common.errors import InputError
from examples.common.json_types import Count, Measured, PositiveInt
from examples.common.records import read_lines, read_object

ByClass = TypedDict("ByClass", dict.fromkeys(CLASS_NAMES, Measured | None))  # type: ignore[misc]
PixelsByClass = TypedDict("PixelsByClass", dict.fromkeys(CLASS_NAMES, Count))  # type: ignore[misc]


class Figures(TypedDict):
    """What the page shows of a network, or of a baseline; None of a task that it does not have."""

    semantic_iou: Measured | None
    semantic_iou_present: Measured | None
    semantic_iou_per_class: ByClass
    instance_error_px: Measured | None
    depth_error_px: Measured | None
    depth_error_per_metre: Measured | None


class OfficialFigures(TypedDict, total=False):
    """What the page shows of the official scripts; None where they had nothing to measure."""

    ap: Measured | None
    ap50: Measured | None
    pq: Measured | None


class OptionalFigures(TypedDict, total=False):
    """What the page shows of a metrics.json if the file has it; not every file does."""

    semantic_pixels_per_class: PixelsByClass
    official: OfficialFigures
    checkpoint: str
    iteration: Count


class RunFigures(Figures, OptionalFigures):
    """What the page shows of a metrics.json."""

    instance_rand_index: Measured | None
    num_images: PositiveInt
    untrained: Figures
    position_prior: Figures


class ValidationLine(LogLine):
    """What the page shows of a line of validation.jsonl."""

    semantic_iou_present: Measured | None
    instance_error_px: Measured | None
    depth_error_px: Measured | None


def read_figures(run: Path) -> dict[str, Any] | None:
    """Return the figures of a run; None, with a warning, if its metrics.json is damaged."""
    path = run / "metrics.json"
    if not path.is_file():
        return None
    try:
        return read_object(path, RunFigures, "the report leaves it out; run `evaluate` again")
    except InputError as error:
        print(f"warning: {error}", file=sys.stderr)
        return None


def read_training(config: TrainConfig) -> list[Line]:
    """Return the lines of metrics.jsonl, without damaged ones."""
    return read_lines(config.out / "metrics.jsonl", training_line(config), on_damage="warn")


def iterations_done(config: TrainConfig) -> int:
    """Return how far training has come by its log."""
    lines = read_lines(config.out / "metrics.jsonl", training_line(config), on_damage="skip")
    return lines[-1]["iteration"] + 1 if lines else 0


def read_validations(run: Path) -> list[Line]:
    """Return the lines of validation.jsonl, with all that is to be low under `error`."""
    lines = []
    for line in read_lines(run / "validation.jsonl", ValidationLine, on_damage="warn"):
        iou = line["semantic_iou_present"]
        error = {
            "semantic": None if iou is None else 1 - iou,
            "instance": line["instance_error_px"],
            "depth": line["depth_error_px"],
        }
        lines.append({"iteration": line["iteration"], "error": error})
    return lines
