"""Figure 2 of the paper: two tasks over their fixed weights, beside learned ones."""

import argparse
from pathlib import Path
from typing import Any

from examples.cityscapes.experiments.experiment import ExperimentOutcome, run_experiment, write_page
from examples.cityscapes.experiments.experiment_flags import add_options, run_to_the_end
from examples.cityscapes.experiments.plots import draw_sweep
from examples.cityscapes.experiments.published import published_rows
from examples.cityscapes.experiments.table1 import line, table
from examples.common.checkpoint import write_atomically

FIGURES_2 = {"a": "fig2a", "b": "fig2b"}
SEEDS = (0, 1, 2)
QUICK_SEEDS = (0,)


def sweep(
    *,
    out: Path,
    figure: str = "both",
    seeds: tuple[int, ...] | None = None,
    quick: bool = False,
    **options: Any,
) -> ExperimentOutcome:
    """Run the points of figure 2a, 2b or both, and write sweep.md, sweep.csv and sweep.png."""
    chosen = [figure] if figure in FIGURES_2 else list(FIGURES_2)
    tables = {name: published_rows(FIGURES_2[name]) for name in chosen}
    trainings = [row.training for rows in tables.values() for row in rows]
    seeds = seeds or (QUICK_SEEDS if quick else SEEDS)
    # The paper's, only for this experiment; the other presets are tuned to rates of their own.
    is_paper = not quick and options.get("preset", "tiny" if options.get("data") else "") == "tiny"
    defaults = {"learning_rate": 0.01} if is_paper else {}
    outcome = run_experiment(
        "sweep",
        trainings,
        out=out,
        seeds=seeds,
        quick=quick,
        defaults=defaults,
        shown={"figure": figure},
        **options,
    )
    if outcome.results:
        body = "# Two tasks over their fixed weights, beside learned ones\n\n" + _INTRODUCTION
        lines = []
        for name, rows in tables.items():
            tasks = tuple(rows[0].weights)
            body += f"\n## Figure 2{name}: {' and '.join(tasks)}\n\n" + table(rows, outcome, tasks)
            lines += [{"figure": name, **line(row, outcome)} for row in rows]
        write_atomically(out / "sweep.png", draw_sweep(tables, outcome))
        write_page(out, "sweep", body, lines, outcome)
    return outcome


_INTRODUCTION = """\
![Figures of merit over the weight of the first task](sweep.png)

Mean ± sample standard deviation over seeds, after the last iteration, on the validation split. A
task of weight 0 is left out of the network. The published numbers, in brackets, are of CityScapes
at 128x256 by ResNet-101: they are there for the comparison of rows with rows, and comparable with
ours only where the recipe below names that setting. Errors are in pixels of the network's input.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.argument_default = argparse.SUPPRESS
    text = "a: semantic and depth; b: instance and depth"
    parser.add_argument("--figure", choices=("a", "b", "both"), help=text)
    add_options(parser)


def run(**options: Any) -> None:
    """Run figure 2."""
    run_to_the_end(sweep, options)
