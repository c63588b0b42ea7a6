"""Learned weights beside their optimum."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.report.curves import running_mean

OPTIMAL_SHARE = {"semantic": 0.5, "instance": 1.0, "depth": 1.0}
"""Weight times loss where sigma is at its optimum: c of `weight = c / loss`."""


def tasks_with_optimum(config: TrainConfig) -> tuple[str, ...]:
    """Return the tasks whose learned weight has that optimum."""
    if config.form not in ("nll", "symmetric") or config.constraint != "none":
        return ()
    per_pixel = config.depth_noise == "per-pixel"
    return tuple(task for task in config.tasks if not (per_pixel and task == "depth"))


def weight_rows_of(config: TrainConfig, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return `weight_rows` of the tasks whose weight has that optimum."""
    tasks = tasks_with_optimum(config)
    return [row for row in weight_rows(lines, config.form) if row["task"] in tasks]


def weight_rows(
    lines: list[dict[str, Any]], form: str = "nll", window: int = 100
) -> list[dict[str, Any]]:
    """Compare each learned weight with its optimum for the recent losses."""
    rows = []
    for task, weight in lines[-1]["weight"].items():
        losses = [line["loss"][task] for line in lines if line["loss"][task] is not None]
        sigma = lines[-1]["sigma"].get(task)
        recent = float(running_mean(np.array(losses), window)[-1]) if losses else 0.0
        if recent > 0 and None not in (weight, sigma):
            optimum = float(optimal_weight(task, recent, form))
            rows.append({"task": task, "sigma": sigma, "loss": recent, "weight": weight})
            rows[-1] |= {"optimum": optimum, "deviation": weight / optimum - 1}
    return rows


def optimal_weight(task: str, loss: ArrayLike, form: str) -> np.ndarray:
    """Return the weight at sigma's optimum for a loss."""
    return (1.0 if form == "symmetric" else OPTIMAL_SHARE[task]) / np.asarray(loss, float)
