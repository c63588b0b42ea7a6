"""The comparison as one picture: a row for each way, a dot for each problem."""

import io

from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, ScalarFormatter

from benchmarks.weighting.one_training import geometric_mean
from benchmarks.weighting.paired import Ratios, interval, over_all
from examples.common.figure_style import GREY, STYLE, WIDTH


def ratios_figure(ratios: Ratios) -> bytes:
    """Return a PNG of all ratios to equal weights, with their 95% intervals."""
    means = {way: geometric_mean(over_all(ratios, way)) for way in next(iter(ratios.values()))}
    ways = sorted(means, key=means.get, reverse=True)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.34 * len(ways) + 2.2), layout="constrained")
        axes = figure.subplots()
        for number, (problem, of_ways) in enumerate(ratios.items()):
            color, shift = f"C{number % 10}", 0.6 * (number + 0.5) / len(ratios) - 0.3
            for row, way in enumerate(ways):
                middle, low, high = interval(of_ways[way])
                label = problem if row == 0 else None
                axes.plot([low, high], [row + shift] * 2, color=color, linewidth=1)
                axes.plot(middle, row + shift, "o", color=color, markersize=4, label=label)
        for row, way in enumerate(ways):
            axes.plot([means[way]] * 2, [row - 0.4, row + 0.4], color=GREY, linewidth=2)
        axes.axvline(1.0, color=GREY, linewidth=1, zorder=0)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xticks([0.2, 0.5, 1, 2])
        axes.set_xlim(0.15, 2.5)
        axes.set_yticks(range(len(ways)), ways)
        axes.set_xlabel("error over that of equal weights: left is better (bar: all of them)")
        figure.legend(loc="outside lower center", ncols=2, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer)
    return buffer.getvalue()
