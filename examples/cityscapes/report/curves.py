"""Curves of a training run as SVG that takes the colours of the page around it."""

import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

LogLines = Sequence[dict[str, Any]]

TASK_COLORS = {"semantic": "#3b82f6", "instance": "#f97316", "depth": "#10b981"}
"""Readable on white and on black."""

_INK = "#123456"  # stands for the colour of the page's text
_FEW = 25
_MOST = 600


def draw_curves(
    runs: Mapping[str, LogLines], quantity: str, title: str, *, window: int = 50
) -> str:
    """Draw a logged quantity of every task against the iteration.

    Args:
        runs: The lines of metrics.jsonl by the name of the run; the first is solid, the second
            dashed.
        quantity: The key of the lines under which it is, by task.
        title: What the axis shows.
        window: Values that each point is the mean of.
    """
    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": quantity,
        "font.family": "sans-serif",
        "text.color": _INK,
        "axes.edgecolor": _INK,
        "axes.labelcolor": _INK,
        "xtick.color": _INK,
        "ytick.color": _INK,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        axes = figure.subplots()
        for (name, lines), style in zip(runs.items(), ("-", "--"), strict=False):
            for task, (iterations, values) in _by_task(lines, quantity, window).items():
                label = task if len(runs) == 1 else f"{task}, {name}"
                # A curve of few points may have one only, which no line shows.
                marker = "." if len(iterations) < _FEW else None
                axes.plot(
                    iterations,
                    values,
                    style,
                    marker=marker,
                    color=TASK_COLORS[task],
                    label=label,
                    linewidth=1.4,
                )
        if axes.lines:
            log_scale(axes)
            axes.legend(frameon=False, fontsize=8)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("iteration", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
        return _to_inline_svg(figure)


def log_scale(axes: Axes) -> None:
    """Make the vertical axis logarithmic, with plain numbers at 1, 2, 5, 10 and so on."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _by_task(
    lines: LogLines, quantity: str, window: int
) -> dict[str, tuple[list[int], np.ndarray]]:
    points: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        for task, value in line[quantity].items():
            if value is not None and value > 0 and math.isfinite(value):
                points.setdefault(task, []).append((line["iteration"], value))
    smooth = {}
    for task, pairs in points.items():
        iterations, values = zip(*pairs, strict=True)
        means = running_mean(np.array(values), window)
        # More points than the picture has pixels would only make the page large.
        shown = np.unique(np.linspace(0, len(means) - 1, min(_MOST, len(means))).astype(int))
        smooth[task] = ([iterations[k] for k in shown], means[shown])
    return smooth


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Return the mean of the last `window` values, of fewer at the beginning."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    stop = np.arange(1, len(values) + 1)
    start = np.maximum(0, stop - window)
    return (sums[stop] - sums[start]) / (stop - start)


def _to_inline_svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_INK, "currentColor")
    # The page decides the width; the metadata would name an address in an offline page.
    svg = re.sub(r'(<svg [^>]*?)width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", svg, count=1)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
