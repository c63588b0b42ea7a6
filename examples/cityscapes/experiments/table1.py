"""Table 1 of the paper, and that of the McGill report: which losses are better trained together."""

import argparse
from pathlib import Path
from typing import Any

from examples.cityscapes.experiments.experiment import ExperimentOutcome, run_experiment, write_page
from examples.cityscapes.experiments.experiment_flags import add_options, run_to_the_end
from examples.cityscapes.experiments.published import PublishedRow, published_rows
from examples.cityscapes.experiments.results import (
    FIGURES,
    cell,
    digits_of,
    flat,
    markdown_table,
    summaries,
)
from examples.cityscapes.experiments.training import distinct
from examples.cityscapes.settings import TASKS

TABLES = {"table1": "Table 1 of the paper", "mcgill": "The McGill report"}
SEEDS = (0, 1, 2)


def table1(*, out: Path, seeds: tuple[int, ...] = SEEDS, **options: Any) -> ExperimentOutcome:
    """Run the rows of both tables, and write table1.md and table1.csv."""
    tables = {name: published_rows(name) for name in TABLES}
    trainings = distinct([row.training for rows in tables.values() for row in rows])
    outcome = run_experiment("table1", trainings, out=out, seeds=seeds, **options)
    if outcome.results:
        body = "# Single tasks, fixed weights and learned weights\n\n" + _INTRODUCTION
        for name, rows in tables.items():
            body += f"\n## {TABLES[name]}\n\n" + table(rows, outcome, TASKS)
        lines = [
            {"table": name, "loss": row.loss, **line(row, outcome, TASKS)}
            for name, rows in tables.items()
            for row in rows
        ]
        write_page(out, "table1", body, lines, outcome)
    return outcome


_INTRODUCTION = """\
Mean ± sample standard deviation over seeds, after the last iteration, on the validation split. The
published numbers are of CityScapes at 128x256 by ResNet-101: they are there for the comparison of
rows with rows, and comparable with ours only where the recipe below names that setting. Errors are
in pixels of the network's input, and the McGill report computes its IoU in another way.
"""


def table(rows: list[PublishedRow], outcome: ExperimentOutcome, tasks: tuple[str, ...]) -> str:
    """Return our figures beside the published ones."""
    published = [figure for figure in FIGURES if figure in rows[0].figures]
    shown = [f for f in FIGURES if f in published or f.removesuffix("_present") in published]
    named = any(row.loss for row in rows)
    columns = [*(["loss"] if named else []), *(f"weight, {task}" for task in tasks), "seeds"]
    columns += [FIGURES[figure] for figure in shown]
    columns += [f"published {FIGURES[figure]}" for figure in published]
    lines = []
    for row in rows:
        ours = outcome.of(row.training)
        summary = summaries(ours)
        cells = [*([row.loss] if named else []), *(row.weights.get(t) or "-" for t in tasks)]
        cells += [str(len(ours)), *(cell(summary[f], digits_of(f)) for f in shown)]
        cells += [row.figures[figure] for figure in published]
        lines.append(cells)
    return markdown_table(columns, lines)


def line(row: PublishedRow, outcome: ExperimentOutcome, tasks: tuple[str, ...]) -> dict[str, Any]:
    """Return the same for programs."""
    cells: dict[str, Any] = {f"weight_{task}": row.weights.get(task) for task in tasks}
    for figure, summary in summaries(outcome.of(row.training)).items():
        cells |= flat(figure, summary)
    return cells | {f"published_{f}": row.figures.get(f) for f in FIGURES if f in _PUBLISHED}


_PUBLISHED = ("semantic_iou", "instance_error_px", "depth_error_px")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_options(parser)


def run(**options: Any) -> None:
    """Run both tables."""
    run_to_the_end(table1, options)
