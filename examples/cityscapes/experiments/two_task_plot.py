"""The figures of the two-task table as a picture."""

from collections.abc import Mapping

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.cityscapes.experiments.methods import BySeed, intervals
from examples.cityscapes.experiments.plots import png, without_frame
from examples.common.figure_style import GREY, STYLE, WIDTH

_INK, _PALE = "#3b82f6", "#93b4e6"  # readable on white and on black


@matplotlib.rc_context(STYLE)
def draw_methods(figures: Mapping[str, BySeed], titles: Mapping[str, str]) -> bytes:
    """Draw, for every figure, the runs of each method, their mean and its interval.

    Args:
        figures: By method and seed.
        titles: Title of each figure, by its name.
    """
    figure = Figure(figsize=(WIDTH, 0.36 * len(figures) + 1.1))
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(titles), sharey=True, squeeze=False)[0]
    for axes, (name, title) in zip(panels, titles.items(), strict=True):
        _draw_figure(axes, figures, name)
        axes.set_title(title, fontsize=9)
        without_frame(axes)
    panels[0].set_yticks(range(len(figures)), labels=list(figures), fontsize=9)
    panels[0].invert_yaxis()
    return png(figure)


def _draw_figure(axes: Axes, figures: Mapping[str, BySeed], name: str) -> None:
    for row, of_method in enumerate(figures.values()):
        found = [run[name] for run in of_method.values()]
        values = [value for value in found if value is not None]
        axes.plot(values, [row] * len(values), "o", color=_PALE, markersize=3.5)
        mean, half_width, _ = intervals(of_method).get(name, (None, None, 0))
        if mean is not None:
            axes.errorbar(
                [mean], [row], xerr=half_width, fmt="|", color=_INK, markersize=9, capsize=3
            )
    if name == "delta_m":
        axes.axvline(0, color=GREY, linewidth=0.8, linestyle=":")
