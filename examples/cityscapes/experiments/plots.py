"""Plots of the experiments, as PNG."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.cityscapes.experiments.experiment import ExperimentOutcome
from examples.cityscapes.experiments.published import PublishedRow
from examples.cityscapes.experiments.results import FIGURES, Summary, summaries, summarize
from examples.cityscapes.report.curves import TASK_COLORS, LogLines, log_scale, running_mean
from examples.cityscapes.report.weights import optimal_weight
from examples.common.figure_style import GREY, STYLE, WIDTH

_TASK = {"semantic_iou": "semantic", "instance_error_px": "instance", "depth_error_px": "depth"}


@matplotlib.rc_context(STYLE)
def draw_sweep(tables: Mapping[str, Sequence[PublishedRow]], outcome: ExperimentOutcome) -> bytes:
    """Draw figures of merit over the weight of the first task: ours left, the published right."""
    figure = Figure(figsize=(WIDTH, 4.8 * len(tables)), layout="constrained")
    grid = figure.subplots(2 * len(tables), 2, squeeze=False)
    for number, (name, rows) in enumerate(tables.items()):
        for offset, merit in enumerate(f for f in FIGURES if f in rows[0].figures):
            panels = grid[2 * number + offset]
            for axes, whose in zip(panels, ("ours", "published"), strict=True):
                source = outcome if whose == "ours" else None
                _draw_merit(axes, [(row, _merit(row, merit, source)) for row in rows], merit)
                axes.set_title(f"figure 2{name}, {whose}")
    return png(figure)


def _merit(row: PublishedRow, merit: str, outcome: ExperimentOutcome | None) -> Summary:
    if outcome is not None:
        return summaries(outcome.of(row.training))[merit]
    return summarize([float(row.figures[merit]) if row.figures[merit] else None])


def _draw_merit(axes: Axes, points: list[tuple[PublishedRow, Summary]], merit: str) -> None:
    first = next(iter(points[0][0].weights))
    known = [(row.weights[first], summary) for row, summary in points if summary.mean is not None]
    fixed = sorted((float(weight), summary) for weight, summary in known if weight != "learned")
    color = TASK_COLORS[_TASK[merit]]
    if fixed:
        weights, means = [w for w, _ in fixed], [s.mean or 0.0 for _, s in fixed]
        spreads = [s.spread or 0.0 for _, s in fixed]
        style: dict[str, Any] = {"color": color, "markersize": 3, "linewidth": 1, "capsize": 2}
        axes.errorbar(weights, means, spreads, fmt="o-", label="fixed", **style)
    for weight, (mean, spread, _) in known:
        if weight == "learned" and mean is not None:
            axes.axhline(mean, color=GREY, linestyle="--", linewidth=1, label="learned")
            if spread:
                axes.axhspan(mean - spread, mean + spread, color=GREY, alpha=0.15, linewidth=0)
    axes.set_ylabel(FIGURES[merit])
    axes.set_xlabel(f"weight of the {first} task")
    if known:
        axes.legend(frameon=False)
    without_frame(axes)


@matplotlib.rc_context(STYLE)
def draw_starts(log_vars: Mapping[str, Mapping[float, Sequence[np.ndarray]]]) -> bytes:
    """Draw log sigma^2 over the iteration.

    Args:
        log_vars: By task and start, a trajectory for every seed.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    for axes, (task, starts) in zip(
        figure.subplots(1, len(log_vars), squeeze=False)[0], log_vars.items(), strict=True
    ):
        shades = matplotlib.colormaps["viridis"](np.linspace(0.25, 0.9, len(starts)))
        for shade, (start, trajectories) in zip(shades, starts.items(), strict=True):
            for index, values in enumerate(trajectories):
                label = f"{start:g}" if index == 0 else None
                axes.plot(values, color=shade, linewidth=0.9, label=label)
        axes.set_title(task)
        axes.set_xlabel("iteration")
        without_frame(axes)
    lines = axes.get_legend_handles_labels()
    figure.legend(*lines, loc="outside right", title="start", frameon=False)
    figure.axes[0].set_ylabel("log sigma²")
    return png(figure)


@matplotlib.rc_context(STYLE)
def draw_weights(
    runs: Sequence[LogLines], tasks: Sequence[str], form: str, window: int = 100
) -> bytes:
    """Draw learned weights over the iteration, beside their optimum for the recent losses.

    Args:
        runs: The lines of metrics.jsonl of every seed.
        tasks: The tasks to draw, each in a panel of its own.
        form: How a loss and its log term are added, as in `UncertaintyWeightedLoss`.
        window: How many losses are averaged for the optimum.
    """
    figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
    for axes, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        for lines in runs:
            known = [line for line in lines if line["loss"][task] and line["weight"][task]]
            steps = [line["iteration"] for line in known]
            losses = running_mean(np.array([line["loss"][task] for line in known]), window)
            weights = [line["weight"][task] for line in known]
            axes.plot(steps, weights, color=TASK_COLORS[task], linewidth=0.9, label="learned")
            optimum = optimal_weight(task, losses, form)
            axes.plot(steps, optimum, color=GREY, linewidth=0.9, linestyle="--", label="optimum")
        axes.set_title(task)
        axes.set_xlabel("iteration")
        log_scale(axes)
        without_frame(axes)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[:2], labels[:2], loc="outside right", frameon=False)
    figure.axes[0].set_ylabel("weight")
    return png(figure)


def without_frame(axes: Axes) -> None:
    """Leave a panel its axes and a pale grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)


def png(figure: Figure) -> bytes:
    """Return a picture as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=200, metadata={"Software": None})
    return buffer.getvalue()
