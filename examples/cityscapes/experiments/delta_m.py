"""The mean change of all figures against single-task runs, which papers call delta_m."""

from collections.abc import Mapping
from statistics import fmean

from examples.cityscapes.experiments.results import in_table_units

FIGURES = {
    "semantic_iou": "mean IoU, %",
    "semantic_pixel_accuracy": "pixel accuracy, %",
    "depth_abs_error": "absolute error",
    "depth_rel_error": "relative error",
}
"""What the two-task table shows, by the names in figures.json."""

MORE_IS_BETTER = ("semantic_iou", "semantic_pixel_accuracy")

Figures = Mapping[str, float | None]


def delta_m(figures: Figures, base: Figures) -> float | None:
    """Return how much worse figures are than those of single tasks, in percent; lower is better.

    It is ``100/K sum_k (-1)^l_k (M_k - B_k) / B_k`` over the K = 4 figures, with ``l_k`` = 1 where
    more is better. None where a figure is not known, or a base is 0.
    """
    changes = []
    for name in FIGURES:
        found, single = figures[name], base[name]
        if found is None or not single:
            return None
        worse = single - found if name in MORE_IS_BETTER else found - single
        changes.append(worse / single)
    return 100 * fmean(changes)


def measured(figures: Figures) -> dict[str, float | None]:
    """Return the figures of the table among those of a run, in its units."""
    return {name: in_table_units(name, figures[name]) for name in FIGURES}


def joined(runs: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Return the figures of networks for one task each as those of one network."""
    return {
        name: next((run[name] for run in runs if run[name] is not None), None) for name in FIGURES
    }
