"""The report of one or several runs: one HTML file that needs nothing else."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np

from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.evaluation.evaluate import Metrics
from examples.cityscapes.flags import add_checkpoint_flag
from examples.cityscapes.labels import CLASS_NAMES, PALETTE
from examples.cityscapes.report.about import about
from examples.cityscapes.report.curves import draw_curves
from examples.cityscapes.report.figures import class_rows, figure_rows
from examples.cityscapes.report.page_scenes import draw_scenes
from examples.cityscapes.report.run_files import (
    iterations_done,
    read_figures,
    read_training,
    read_validations,
)
from examples.cityscapes.report.weights import weight_rows_of
from examples.cityscapes.settings import are_learned, check_three_tasks
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError
from examples.common.flag_text import value_text


class ReportedRun(NamedTuple):
    """A run, finished or not."""

    config: TrainConfig
    metrics: Metrics | None
    """The figures of the run; None if it has not been evaluated."""
    iterations: int
    """Iterations so far: fewer than configured if time ran out or training still goes on."""
    seconds: float | None = None
    """How long training took; None if it was not measured."""


def write_report(config: TrainConfig, data: Path | None, checkpoint: str = "last") -> Path:
    """Write report.html of the run in `config.out` from what is there, also while it trains.

    Args:
        config: The run's configuration.
        data: Dataset whose validation images are shown; None for a page without pictures.
        checkpoint: `last` or `best`: which network draws them.

    Returns:
        The path of the page.
    """
    check_three_tasks(config, "report")
    run = ReportedRun(config, read_figures(config.out), iterations_done(config))
    if data is not None and not (config.out / f"{checkpoint}.pt").is_file():
        raise InputError(
            f"{config.out / f'{checkpoint}.pt'}: not there yet, so no picture can be drawn; leave "
            "--data out for a page without"
        )
    path = config.out / "report.html"
    write_atomically(path, render_report([run], data, checkpoint=checkpoint))
    return path


def render_report(
    runs: list[ReportedRun], data: Path | None, *, rendered: bool = False, checkpoint: str = "last"
) -> str:
    """Return the page for one or more runs on the same data.

    Args:
        runs: The first one's settings decide which pictures are drawn.
        data: Dataset whose validation images are shown; None for a page without pictures.
        rendered: Whether the data are scenes that we have rendered.
        checkpoint: `last` or `best`: which network draws them.
    """
    configs = {_name(run): run.config for run in runs}
    logs = {_name(run): read_training(run.config) for run in runs}
    learned = {n: log for n, log in logs.items() if log and are_learned(configs[n].weighting)}
    validations = {_name(run): read_validations(run.config.out) for run in runs}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    scenes: list[Any] = []
    seen: list[Any] = []
    if data is not None:
        scenes, seen = draw_scenes(configs, data, checkpoint)
    curves = [draw_curves(logs, "loss", "loss (running mean of 50)")]
    if learned:
        curves.append(draw_curves(learned, "sigma", "sigma"))
        curves.append(draw_curves(learned, "weight", "weight"))
    if any(validations.values()):
        title = "validation: 1 - mean IoU, and errors in px"
        curves.append(draw_curves(validations, "error", title, window=1))
    return environment.get_template("page.html.jinja").render(
        runs=[(_name(run), run) for run in runs],
        rendered=rendered,
        figures=figure_rows([run.metrics for run in runs]),
        per_class=class_rows([run.metrics for run in runs]),
        curves=curves if any(logs.values()) else [],
        weights=[
            row for name, log in learned.items() for row in weight_rows_of(configs[name], log)
        ],
        noise_per_pixel=any(run.config.depth_noise == "per-pixel" for run in runs),
        settings=settings(runs[0].config),
        about=about(configs, data, rendered=rendered),
        pictures=scenes,
        legend=[(CLASS_NAMES[k], _hex(PALETTE[k])) for k in seen],
    )


def settings(config: TrainConfig) -> list[tuple[str, str, bool]]:
    """Return the name of every setting, its value, and whether that is not the default."""
    rows = []
    for field in dataclasses.fields(config):
        if field.name not in ("data", "out"):
            value = getattr(config, field.name)
            text = value_text(field.name, value)
            rows.append((field.name.replace("_", " "), text, value != field.default))
    return rows


def _name(run: ReportedRun) -> str:
    return {"uncertainty": "learned weights", "equal": "equal weights"}.get(
        run.config.weighting, run.config.weighting
    )


def _hex(color: np.ndarray) -> str:
    return "#" + "".join(f"{int(channel):02x}" for channel in color)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run; report.html goes there")
    add("--data", type=Path, help="dataset whose validation images are shown (none)")
    add_checkpoint_flag(add)


def run(run: Path, data: Path | None, checkpoint: str) -> None:
    """Write the page of a run."""
    print(write_report(load_config(run), data, checkpoint))
