"""The numbers that others have published, and the trainings that they belong to."""

import csv
from pathlib import Path
from typing import NamedTuple

from examples.cityscapes.experiments.training import Training

_FOLDER = Path(__file__).parent / "published"

_WEIGHTS = {"w_seg": "semantic", "w_class": "semantic", "w_inst": "instance", "w_depth": "depth"}
_FIGURES = {
    "iou_pct": "semantic_iou",
    "inst_px": "instance_error_px",
    "invdepth_px": "depth_error_px",
    "depth_px": "depth_error_px",
}


class PublishedRow(NamedTuple):
    """One row of a published table."""

    loss: str
    weights: dict[str, str]
    """Weights by task, as they were printed; a task that was not trained has 0, or nothing."""
    figures: dict[str, str]
    """Figures as they were printed, by our names; empty where there is none. IoU in percent."""

    @property
    def training(self) -> Training:
        """What we train for it; a task of weight 0 is left out."""
        weights = {task: w for task, w in self.weights.items() if w and w != "learned"}
        fixed = {task: float(w) for task, w in weights.items() if float(w) > 0}
        learned = tuple(task for task, w in self.weights.items() if w == "learned")
        if learned:
            return Training(learned, "uncertainty")
        if len(set(fixed.values())) == 1:
            return Training(tuple(fixed), "equal")
        return Training(tuple(fixed), "fixed:" + ",".join(f"{w:g}" for w in fixed.values()))


def published_rows(name: str) -> list[PublishedRow]:
    """Read `table1`, `mcgill`, `fig2a` or `fig2b`; see published/README.md for their sources."""
    return [
        PublishedRow(
            line.get("loss", ""),
            {task: line[column] for column, task in _WEIGHTS.items() if column in line},
            {figure: line[column] for column, figure in _FIGURES.items() if column in line},
        )
        for line in published_lines(name)
    ]


def published_sigmas() -> dict[str, dict[str, float]]:
    """Read, by task, from which iteration the starts agree, and sigma^2 at 500 and at the end."""
    return {
        line["task"]: {name: float(text) for name, text in line.items() if name != "task"}
        for line in published_lines("sigma")
    }


def published_lines(name: str) -> list[dict[str, str]]:
    """Read a table as it was printed."""
    with (_FOLDER / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
