"""Table 1 of the paper, and that of the McGill report: which losses are better trained together."""

import argparse
from pathlib import Path
from typing import Any

from examples.cityscapes.config import load_config
from examples.cityscapes.experiments.experiment import ExperimentOutcome, run_experiment, write_page
from examples.cityscapes.experiments.experiment_flags import add_options, run_to_the_end
from examples.cityscapes.experiments.plots import draw_weights
from examples.cityscapes.experiments.published import PublishedRow, published_rows
from examples.cityscapes.experiments.results import (
    FIGURES,
    cell,
    digits_of,
    flat,
    markdown_table,
    summaries,
)
from examples.cityscapes.experiments.training import Training
from examples.cityscapes.report.weights import tasks_with_optimum
from examples.cityscapes.settings import TASKS
from examples.cityscapes.training.log import training_line
from examples.common.checkpoint import write_atomically
from examples.common.records import read_lines

TABLES = {"table1": "Table 1 of the paper", "mcgill": "The McGill report"}
SEEDS = (0, 1, 2)


def table1(*, out: Path, seeds: tuple[int, ...] = SEEDS, **options: Any) -> ExperimentOutcome:
    """Run the rows of both tables, and write table1.md, table1.csv and table1.png."""
    tables = {name: published_rows(name) for name in TABLES}
    trainings = [row.training for rows in tables.values() for row in rows]
    outcome = run_experiment("table1", trainings, out=out, seeds=seeds, **options)
    if outcome.results:
        body = "# Single tasks, fixed weights and learned weights\n\n" + _INTRODUCTION
        if picture := weights_picture(outcome):
            write_atomically(out / "table1.png", picture)
            body += _PICTURE
        for name, rows in tables.items():
            body += f"\n## {TABLES[name]}\n\n" + table(rows, outcome, TASKS)
        lines = [
            {"table": name, "loss": row.loss, **line(row, outcome)}
            for name, rows in tables.items()
            for row in rows
        ]
        write_page(out, "table1", body, lines, outcome)
    return outcome


_INTRODUCTION = """\
Mean ± sample standard deviation over seeds, after the last iteration, on the validation split. The
published numbers, in brackets, are of CityScapes at 128x256 by ResNet-101: they are there for the
comparison of rows with rows, and comparable with ours only where the recipe below names that
setting. Errors are in pixels of the network's input, and the McGill report computes its IoU in
another way.
"""


_PICTURE = """
![Learned weights over the iteration, beside their optimum](table1.png)

The weights of the three tasks learned together, a line for each seed. The optimum is what the
closed form gives for the mean of the last 100 losses.
"""


def weights_picture(outcome: ExperimentOutcome) -> bytes | None:
    """Return how the weights of all three tasks were learned; None where there is no optimum."""
    training = Training(TASKS, "uncertainty")
    runs = [f for p, f in outcome.folders.items() if p[0] == training and p in outcome.results]
    if not runs or not (tasks := tasks_with_optimum(config := load_config(runs[0]))):
        return None
    logs = [
        read_lines(run / "metrics.jsonl", training_line(config), on_damage="skip") for run in runs
    ]
    return draw_weights(logs, tasks, config.form)


def table(rows: list[PublishedRow], outcome: ExperimentOutcome, tasks: tuple[str, ...]) -> str:
    """Return our figures, each with the published one in brackets."""
    published = [figure for figure in FIGURES if figure in rows[0].figures]
    shown = [f for f in FIGURES if f in published or f.removesuffix("_present") in published]
    named = any(row.loss for row in rows)
    columns = [*(["loss"] if named else []), "weights", "seeds"]
    columns += [FIGURES[f] + (" (published)" if f in published else "") for f in shown]
    lines = []
    for row in rows:
        ours = outcome.of(row.training)
        summary = summaries(ours)
        weights = ", ".join(row.weights.get(task) or "-" for task in tasks)
        cells = [*([row.loss] if named else []), weights, str(len(ours))]
        for figure in shown:
            other = row.figures.get(figure)
            own = cell(summary[figure], digits_of(figure))
            cells.append(f"{own} ({other})".lstrip() if other else own)
        lines.append(cells)
    return f"Weights of {', '.join(tasks)}.\n\n{markdown_table(columns, lines)}"


def line(row: PublishedRow, outcome: ExperimentOutcome) -> dict[str, Any]:
    """Return the same for programs."""
    cells: dict[str, Any] = {f"weight_{task}": row.weights.get(task) for task in TASKS}
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
