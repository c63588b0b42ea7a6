"""The whole example at a small size: render scenes, train on them, evaluate, write a report."""

import argparse
import dataclasses
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from examples.cityscapes.config import TrainConfig, new_config, to_json
from examples.cityscapes.evaluation.evaluate import evaluate
from examples.cityscapes.evaluation.tables import summary
from examples.cityscapes.presets import PRESETS
from examples.cityscapes.report.page import ReportedRun, render_report
from examples.cityscapes.training.train import train
from examples.common.checkpoint import write_atomically
from examples.common.command_line import height_and_width, positive_number, whole_number
from examples.common.errors import InputError
from examples.common.folders import replace_folder
from examples.common.lock import locked
from examples.rendered_scenes import synthesize

TRAINING_SECONDS = 3600
"""Time limit after which training stops early, for machines on which it would take too long."""


def demo(
    *,
    out: Path,
    compare: bool = False,
    seed: int = 0,
    iterations: int = 1400,
    train_scenes: int = 1500,
    val_scenes: int = 60,
    size: tuple[int, int] = (64, 128),
) -> Path:
    """Run the demo; returns the path of its report.

    Everything is written to a folder beside `out`, which replaces `out` at the end, so that an
    earlier demo stays until the new one is complete.
    """
    out = out.resolve()
    check_replaceable(out)
    if train_scenes < PRESETS["demo"]["batch_size"]:
        raise InputError(
            f"--train-scenes: should be at least {PRESETS['demo']['batch_size']}, one batch; "
            f"found {train_scenes}"
        )
    partial = out.with_name(f".{out.name}.partial")
    scenes = partial / "scenes"
    configs = [
        new_config(
            {
                "preset": "demo",
                "data": scenes,
                "out": partial / weighting,
                "weighting": weighting,
                "size": size,
                "iterations": iterations,
                "seed": seed,
            }
        )
        for weighting in (("uncertainty", "equal") if compare else ("uncertainty",))
    ]
    if partial.exists():
        shutil.rmtree(partial)  # left by a demo that was interrupted
    # All 19 classes take longer to learn than a demo may last.
    scene_options: dict[str, Any] = {"size": size, "seed": seed, "classes": "common"}
    synthesize(scenes, train=train_scenes, val=val_scenes, **scene_options)
    runs = [train_and_evaluate(config) for config in configs]
    write_atomically(partial / "report.html", render_report(runs, scenes, rendered=True))

    for run in runs:
        moved = dataclasses.replace(run.config, data=out / "scenes", out=out / run.config.out.name)
        write_atomically(run.config.out / "config.json", to_json(moved))
    replace_folder(partial, out)
    return out / "report.html"


def train_and_evaluate(config: TrainConfig) -> ReportedRun:
    """Train one network and measure it; prints its figures."""
    print(f"training with {config.weighting} weights", file=sys.stderr)
    start = time.monotonic()
    done = train(config, deadline=start + TRAINING_SECONDS)
    seconds = time.monotonic() - start
    if done < config.iterations:
        print(
            f"warning: stopped after {done} of {config.iterations} iterations, as they took more "
            f"than {TRAINING_SECONDS} seconds; the figures may be worse than those of a whole run",
            file=sys.stderr,
        )
    metrics = evaluate(config, config.data)
    print(summary(metrics))
    return ReportedRun(config, metrics, done, seconds)


def check_replaceable(out: Path) -> None:
    """Raise if `out` holds anything but an earlier demo."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    parts = ("report.html", "scenes", "uncertainty/config.json")
    is_demo = all((out / part).exists() for part in parts)
    if out.is_dir() and any(out.iterdir()) and not is_demo:
        raise InputError(f"--out: {out} holds something other than an earlier demo")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    folder = "folder; an earlier demo is replaced"
    add("--out", type=Path, default=Path("runs/demo"), help=folder)
    add("--compare", action="store_true", help="train with equal weights too (twice the time)")
    add("--seed", type=whole_number, default=0)
    add("--iterations", type=positive_number, default=1400, metavar="N")
    add("--train-scenes", type=positive_number, default=1500, metavar="N")
    add("--val-scenes", type=positive_number, default=60, metavar="N")
    add("--size", type=height_and_width, default=(64, 128), metavar="HxW")


def run(**options: Any) -> None:
    """Render, train, evaluate and report."""
    with locked(options["out"]):
        print(demo(**options))
