"""The figures of runs beside those of the baselines, as rows of text."""

from examples.cityscapes.evaluation.evaluate import Metrics
from examples.cityscapes.labels import CLASS_NAMES

FIGURES = {
    "semantic_iou_present": ("mean IoU", "classes present, higher is better"),
    "semantic_iou": ("mean IoU", "official rule, higher is better"),
    "instance_error_px": ("offset error", "|dx| + |dy| in px, lower is better"),
    "instance_rand_index": ("Rand index", "of instances, adjusted, higher is better"),
    "depth_error_px": ("depth error", "disparity in px, lower is better"),
    "depth_error_per_metre": ("depth error", "inverse depth in 1/m, lower is better"),
}
OFFICIAL_FIGURES = {
    "ap": ("AP", "official scripts, at the size of the images, higher is better"),
    "ap50": ("AP50", "official scripts, at the size of the images, higher is better"),
    "pq": ("panoptic quality", "official scripts, at the size of the images, higher is better"),
}
"""What only `evaluate --official` measures, and only of the network."""


def figure_rows(runs: list[Metrics | None]) -> list[tuple[str, str, list[str]]]:
    """Return title, explanation and values of every figure that a run has.

    Args:
        runs: The figures of each run; None of one that has not been evaluated.
    """
    columns = _columns(runs)
    rows = [
        (*titles, [column.get(figure) for column in columns]) for figure, titles in FIGURES.items()
    ]
    rows += [
        (*titles, [column.get("official", {}).get(figure) for column in columns])
        for figure, titles in OFFICIAL_FIGURES.items()
    ]
    # A task that no run has trained has no row.
    return [
        (title, direction, [_number(value) for value in values])
        for title, direction, values in rows
        if any(value is not None for value in values[: len(runs)])
    ]


def class_rows(runs: list[Metrics | None]) -> list[tuple[str, list[str]]]:
    """Return the IoU of every class that occurs in the validation images."""
    columns = _columns(runs)
    if not columns or columns[0].get("semantic_iou") is None:
        return []
    # A class that is predicted but occurs nowhere has an IoU of 0, too.
    pixels = columns[0].get("semantic_pixels_per_class")
    rows = [(name, [c["semantic_iou_per_class"][name] for c in columns]) for name in CLASS_NAMES]
    return [
        (name, [_number(v) for v in values])
        for name, values in rows
        # Without counts, in older files, it occurs for certain if anyone has found some of it.
        if (pixels[name] if pixels else any(values))
    ]


def _columns(runs: list[Metrics | None]) -> list[Metrics]:
    measured = [metrics for metrics in runs if metrics is not None]
    if len(measured) < len(runs):
        return []
    return [*measured, measured[0]["untrained"], measured[0]["position_prior"]]


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.1 else f"{value:.2g}"
