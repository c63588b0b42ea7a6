"""Whether sigma reaches the same value from every start, as the paper's appendix finds."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.cityscapes.config import load_config
from examples.cityscapes.experiments.experiment import ExperimentOutcome, run_experiment, write_page
from examples.cityscapes.experiments.experiment_flags import add_options, run_to_the_end
from examples.cityscapes.experiments.plots import draw_starts
from examples.cityscapes.experiments.published import published_sigmas
from examples.cityscapes.experiments.results import cell, markdown_table, summarize
from examples.cityscapes.experiments.training import Training
from examples.cityscapes.settings import TASKS
from examples.cityscapes.training.log import training_line
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError
from examples.common.records import read_lines

STARTS = tuple(float(start) for start in range(-2, 6))
"""Starts of log sigma^2, the same for all tasks."""
TOLERANCES = (0.5, 0.2, 0.1)
"""Starts agree if the largest and the smallest log sigma^2 differ by no more than this."""
SEEDS = (0, 1, 2)
QUICK_SEEDS = (0, 1)

RowOfStarts = dict[str, Any]


def inits(
    *, out: Path, seeds: tuple[int, ...] | None = None, quick: bool = False, **options: Any
) -> ExperimentOutcome:
    """Train from every start, and write inits.md, inits.csv and inits.png."""
    trainings = {start: Training(TASKS, "uncertainty", start) for start in STARTS}
    seeds = seeds or (QUICK_SEEDS if quick else SEEDS)
    outcome = run_experiment(
        "inits", list(trainings.values()), out=out, seeds=seeds, quick=quick, **options
    )
    # A seed of which a start is missing says nothing on whether all of them agree.
    whole = [s for s in seeds if all((t, s) in outcome.results for t in trainings.values())]
    if whole:
        log_vars = {
            seed: {
                start: read_log_vars(outcome.folders[training, seed])
                for start, training in trainings.items()
            }
            for seed in whole
        }
        by_task = {
            task: {start: [log_vars[s][start][task] for s in whole] for start in STARTS}
            for task in TASKS
        }
        write_atomically(out / "inits.png", draw_starts(by_task))
        rows = [
            {"task": task, "seed": seed, **figures([log_vars[seed][s][task] for s in STARTS])}
            for task in TASKS
            for seed in whole
        ]
        write_page(out, "inits", page(rows), rows, outcome)
    return outcome


def read_log_vars(run: Path) -> dict[str, np.ndarray]:
    """Return log sigma^2 of every task before each iteration of a run."""
    path, config = run / "metrics.jsonl", load_config(run)
    lines = read_lines(path, training_line(config), on_damage="skip")
    if [line["iteration"] for line in lines] != list(range(config.iterations)):
        raise InputError(
            f"{path}: should have a whole line for each of {config.iterations} iterations; delete "
            f"{run}, and the same command trains it again"
        )
    sigmas = {task: [line["sigma"][task] for line in lines] for task in TASKS}
    # Noise that is predicted for every pixel has no sigma where a batch has no labels: nan.
    return {task: 2 * np.log(np.array(values, float)) for task, values in sigmas.items()}


def figures(trajectories: Sequence[np.ndarray]) -> RowOfStarts:
    """Return how the starts of one seed and task differ, now and at the end."""
    values = np.stack(trajectories)  # (starts, iterations)
    between = values.max(axis=0) - values.min(axis=0)
    at_500 = float(np.exp(values[:, 500]).mean()) if values.shape[1] > 500 else None
    return {
        "log_var_at_end": float(values[:, -1].mean()),
        "difference_at_end": float(between[-1]),
        "variance_at_500": at_500,
        "variance_at_end": float(np.exp(values[:, -1]).mean()),
        **{f"agree_within_{t:g}_from": agree_from(between, t) for t in TOLERANCES},
    }


def agree_from(between: np.ndarray, tolerance: float) -> int | None:
    """Return the iteration from which a difference stays within a tolerance, None if never."""
    beyond = np.flatnonzero(between > tolerance)
    first = int(beyond[-1]) + 1 if beyond.size else 0
    return first if first < len(between) else None


def page(rows: list[RowOfStarts]) -> str:
    """Return the page without its recipe."""
    published = published_sigmas()
    own = {task: [row for row in rows if row["task"] == task] for task in TASKS}

    def ours(label: str, name: str, digits: int) -> list[str]:
        return [label, *(_shown([row[name] for row in own[task]], digits) for task in TASKS)]

    def theirs(label: str, name: str) -> list[str]:
        return [f"{label}, published", *(f"{published[task][name]:g}" for task in TASKS)]

    starts_agree = "starts agree within {} from iteration"
    lines = [
        ["seeds", *(str(len(own[task])) for task in TASKS)],
        ours("difference at the end", "difference_at_end", 3),
        *(ours(starts_agree.format(f"{t:g}"), f"agree_within_{t:g}_from", 0) for t in TOLERANCES),
        theirs("starts agree from iteration, about", "agree_from_iteration"),
        ours("sigma² at iteration 500", "variance_at_500", 3),
        theirs("sigma² at iteration 500", "variance_at_500"),
        ours("sigma² at the end", "variance_at_end", 3),
        theirs("sigma² at the end", "variance_at_end"),
    ]
    return _INTRODUCTION + "\n" + markdown_table(["", *TASKS], lines)


def _shown(values: list[float | None], digits: int) -> str:
    summary = summarize(values)
    known = summary.num_values
    some = f" ({known} of {len(values)} seeds)" if known < len(values) else ""
    return cell(summary, digits) + some if known else "-"


_INTRODUCTION = f"""\
# Starts of sigma

![log sigma² over the iteration](inits.png)

Three tasks, learned weights, log sigma² of all tasks started at
{", ".join(f"{start:g}" for start in STARTS)}.
For one seed all starts see the same network and the same images. The difference is that of the
largest and the smallest log sigma² of all starts; they agree from the iteration after which it
never exceeds the tolerance again ("-": not until the end). Mean ± sample standard deviation over
seeds; sigma², which is in units of the errors of a setting and its data, is averaged over the
starts first.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    needs_closed_form = ("estimator", "closed_form_momentum", "temperature")
    add_options(parser, without=("sigma_init", *needs_closed_form))


def run(**options: Any) -> None:
    """Run the starts of sigma."""
    run_to_the_end(inits, options)
