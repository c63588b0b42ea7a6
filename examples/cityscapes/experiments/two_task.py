"""The table of papers on multi-task learning since MTAN: 7 classes and inverse depth."""

import argparse
from pathlib import Path
from typing import Any

from examples.cityscapes.experiments.delta_m import FIGURES
from examples.cityscapes.experiments.experiment import ExperimentOutcome, run_experiment, write_page
from examples.cityscapes.experiments.experiment_flags import add_options, run_to_the_end
from examples.cityscapes.experiments.methods import (
    BySeed,
    Method,
    by_seed,
    intervals,
    methods,
    with_delta_m,
)
from examples.cityscapes.experiments.published import published_lines
from examples.cityscapes.experiments.results import cell, markdown_table
from examples.cityscapes.experiments.two_task_plot import draw_methods
from examples.cityscapes.flags import parser_of
from examples.cityscapes.protocols import TWO_TASK
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError

SEEDS = (0, 1, 2)
TEMPERATURES = (1.0, 5.0, 20.0)

COLUMNS = {**FIGURES, "delta_m": "delta_m, %"}
_DIGITS = {"depth_abs_error": 4, "depth_rel_error": 3}
_PUBLISHED = {
    "semantic_iou": "iou_pct",
    "semantic_pixel_accuracy": "accuracy_pct",
    "depth_abs_error": "abs_error",
    "depth_rel_error": "rel_error",
    "delta_m": "delta_m_pct",
}
_SOURCES = {"nash_mtl": "Nash-MTL paper", "imgrad": "IMGrad paper"}


def two_task(
    *,
    out: Path,
    seeds: tuple[int, ...] = SEEDS,
    temperatures: tuple[float, ...] = TEMPERATURES,
    **options: Any,
) -> ExperimentOutcome:
    """Train every row from every seed, and write two_task.md, two_task.csv and two_task.png."""
    if min(temperatures, default=1.0) <= 0 or len(set(temperatures)) < len(temperatures):
        raise InputError(
            f"--temperatures: should be different numbers above 0; found {temperatures}"
        )
    rows = methods(temperatures)
    outcome = run_experiment(
        "two_task",
        [training for method in rows for training in method.trainings],
        out=out,
        seeds=seeds,
        defaults={"protocol": TWO_TASK.name},
        shown={"temperatures": temperatures},
        figures=FIGURES,
        **options,
    )
    if outcome.results:
        figures = with_delta_m({method.name: by_seed(method, outcome) for method in rows})
        write_atomically(out / "two_task.png", draw_methods(figures, COLUMNS))
        write_page(out, "two_task", page(rows, figures), csv_lines(rows, figures), outcome)
    return outcome


def page(rows: list[Method], figures: dict[str, BySeed]) -> str:
    """Return the page without its recipe."""
    published = {line["method"]: line for line in published_lines("two_task")}
    lines = []
    for method in rows:
        of_method = figures[method.name]
        means = intervals(of_method)
        cells = [cell(means[f], _DIGITS.get(f, 2)) if means else "" for f in COLUMNS]
        lines.append([method.name, "this run", str(len(of_method)), *cells])
        if method.published:
            lines.append(_published_cells(published.pop(method.published)))
    lines += [_published_cells(line) for line in published.values()]
    table = markdown_table(["weights", "source", "seeds", *COLUMNS.values()], lines)
    return f"{_INTRODUCTION}\n{table}\n{_NOTES}"


def _published_cells(line: dict[str, str]) -> list[str]:
    cells = [line[column] for column in _PUBLISHED.values()]
    return [f"*{line['method']}*", _SOURCES[line["source"]], line["seeds"], *cells]


def csv_lines(rows: list[Method], figures: dict[str, BySeed]) -> list[dict[str, Any]]:
    """Return the same for programs."""
    published = {line["method"]: line for line in published_lines("two_task")}
    lines = []
    for method in rows:
        means = intervals(figures[method.name])
        line: dict[str, Any] = {"method": method.name, "seeds": len(figures[method.name])}
        for name in COLUMNS:
            mean, half_width, _ = means[name] if means else (None, None, 0)
            line |= {f"{name}_mean": mean, f"{name}_half_width": half_width}
        other = published.get(method.published, {})
        line["published_as"] = method.published
        line |= {f"published_{name}": other.get(column) for name, column in _PUBLISHED.items()}
        lines.append(line)
    return lines


_INTRODUCTION = """\
# Two tasks: 7 classes and inverse depth

![Every figure of the table by method](two_task.png)

Mean ± half width of the 95% t-interval over seeds, after the last iteration, on the validation
split. Depth errors are over pixels with an inverse depth above 0, in the units of the data: pixels
of disparity at the network's input where the data are in the official layout. The relative error is
the mean of |d - d*| / d*, not in percent.

`delta_m` is the mean of the changes of the four figures, each counted as positive where it is
worse, against the mean of the single-task runs of the same seeds. Lower is better, and below 0 is
better than single tasks. The row of the single tasks has 0 by construction; its interval shows how
much the base itself varies from seed to seed, which the other intervals do not contain.

The rows in italics are published, for other networks and with other training: they are there for
the comparison of rows with rows, and their errors are in the units of the published arrays.
"""
_NOTES = """\
Sources: table 3 of Navon et al., *Multi-Task Learning as a Bargaining Game* (Nash-MTL, ICML 2022,
arXiv 2202.01017); table 2 of Zhou et al., *Injecting Imbalance Sensitivity for Multi-Task Learning*
(IMGrad), for FAMO. STL: a network for each task. LS: the sum of the losses. UW: uncertainty
weighting. RLW: random weights. SI: the sum of the logarithms, whose gradient is that of the closed
form `symmetric` with a momentum of 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.argument_default = argparse.SUPPRESS
    text = f"temperatures of UW-SO, a row for each ({','.join(f'{t:g}' for t in TEMPERATURES)})"
    kind = parser_of(tuple[float, ...])
    parser.add_argument("--temperatures", type=kind, metavar="T,T", help=text)
    of_rows = ("estimator", "closed_form_momentum", "constraint", "temperature")
    add_options(parser, without=of_rows)


def run(**options: Any) -> None:
    """Run the two-task table."""
    run_to_the_end(two_task, options)
