"""Figures as text: beside the baselines, by class, and beside the paper's."""

from typing import Any

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.labels import CLASS_NAMES
from examples.cityscapes.protocols import TWO_TASK

Metrics = dict[str, Any]

TINY = {
    (("semantic",), None): {"semantic_iou": 59.4},
    (("instance",), None): {"instance_error_px": 4.61},
    (("depth",), None): {"depth_error_px": 0.640},
    (("depth", "instance", "semantic"), "equal"): {
        "semantic_iou": 50.1,
        "instance_error_px": 3.79,
        "depth_error_px": 0.592,
    },
    (("instance", "semantic"), "uncertainty"): {"semantic_iou": 61.0, "instance_error_px": 3.42},
    (("depth", "semantic"), "uncertainty"): {"semantic_iou": 62.7, "depth_error_px": 0.533},
    (("depth", "instance"), "uncertainty"): {"instance_error_px": 3.54, "depth_error_px": 0.539},
    (("depth", "instance", "semantic"), "uncertainty"): {
        "semantic_iou": 63.4,
        "instance_error_px": 3.50,
        "depth_error_px": 0.522,
    },
}
"""The paper's table 1 (128x256, validation) by tasks and weighting; IoU in percent."""

FULL = {
    "semantic_iou": 78.5,
    "semantic_iiou": 57.4,
    "category_iou": 89.9,
    "category_iiou": 77.7,
    "ap": 21.6,
    "ap50": 39.0,
    "ap100m": 35.0,
    "ap50m": 37.0,
    "depth_error_px": 2.92,
    "depth_rms_px": 5.88,
}
"""The paper's results at full resolution, of the test server; IoU and AP in percent."""


SUMMARY = (
    "semantic_iou",
    "semantic_iou_present",
    "semantic_pixel_accuracy",
    "instance_error_px",
    "depth_error_px",
    "depth_rms_px",
    "depth_error_per_metre",
    "depth_abs_error",
    "depth_rel_error",
)
"""The main figures of all protocols."""


def full_summary(config: TrainConfig, metrics: Metrics) -> str:
    """Return every table that the figures allow."""
    if config.protocol == TWO_TASK.name:
        return "\n\n".join(filter(None, [summary(metrics), two_task_class_table(metrics)]))
    tables = [summary(metrics), class_table(metrics), paper_table(config, metrics)]
    return "\n\n".join(table for table in tables if table)


def summary(metrics: Metrics) -> str:
    """Return the main figures beside those of the baselines."""
    columns = {"network": metrics, **{k: metrics[k] for k in ("position_prior", "untrained")}}
    lines = [f"{'':24}" + "".join(f"{name:>16}" for name in columns)]
    for figure in [name for name in SUMMARY if name in metrics]:
        cells = [_cell(column[figure], 4) for column in columns.values()]
        lines.append(f"{figure:24}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def two_task_class_table(metrics: Metrics) -> str:
    """Return the IoU of each of the 7 classes, and their mean."""
    if metrics["semantic_iou"] is None:
        return ""
    lines = [f"{'class':24}{'IoU':>10}"]
    lines += [_row(name, [iou]) for name, iou in metrics["semantic_iou_per_class"].items()]
    return "\n".join([*lines, _row("mean", [metrics["semantic_iou"]])])


def class_table(metrics: Metrics) -> str:
    """Return IoU, iIoU and, where the official scripts ran, AP of each class that occurs."""
    if metrics["semantic_iou"] is None:
        return ""
    official = metrics.get("official", {})
    columns = {
        "IoU": metrics["semantic_iou_per_class"],
        "iIoU": metrics["semantic_iiou_per_class"],
    }
    if official:
        columns |= {"AP": official["ap_per_class"], "AP50": official["ap50_per_class"]}
        columns |= {"PQ": official["pq_per_class"]}
    lines = [f"{'class':24}" + "".join(f"{title:>10}" for title in columns)]
    lines += [
        _row(name, [column.get(name) for column in columns.values()])
        for name in CLASS_NAMES
        if columns["IoU"][name] is not None
    ]
    means = [metrics["semantic_iou"], metrics["semantic_iiou"]]
    lines.append(
        _row("mean", [*means, *(official.get(k) for k in ("ap", "ap50", "pq") if official)])
    )
    lines += [
        _row(name, [value, metrics["category_iiou_per_category"][name]])
        for name, value in metrics["category_iou_per_category"].items()
        if value is not None
    ]
    lines.append(_row("mean of categories", [metrics["category_iou"], metrics["category_iiou"]]))
    return "\n".join(lines)


def paper_table(config: TrainConfig, metrics: Metrics) -> str:
    """Return our figures beside the paper's: of table 1 for this setting, and at full resolution.

    Ours are at the network's size on the validation split; those of the official scripts, where
    they ran, are at the size of the images.
    """
    tasks = tuple(sorted(config.tasks))
    weighting = config.weighting if len(tasks) > 1 else None
    columns = {"ours": metrics}
    if "official" in metrics:
        columns["official"] = metrics["official"]
    columns |= {"paper, 128x256": TINY.get((tasks, weighting), {}), "paper, full": FULL}
    lines = [f"{'':24}" + "".join(f"{title:>16}" for title in columns)]
    for figure in ("instance_error_px", *FULL):
        percent = not figure.endswith("_px")
        cells = []
        for title, column in columns.items():
            value = column.get(figure)
            ours = not title.startswith("paper")
            cells.append(_cell(100 * value if percent and ours and value is not None else value, 2))
        if any(cell != "-" for cell in cells[:-1]):
            name = f"{figure}, %" if percent else figure
            lines.append(f"{name:24}" + "".join(f"{cell:>16}" for cell in cells))
    return "\n".join(lines)


def _row(name: str, values: list[float | None]) -> str:
    return f"{name:24}" + "".join(f"{_cell(value, 3):>10}" for value in values)


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
