"""Manual against learned weights on generated volumes, beside the numbers of the report."""

import argparse
import csv
import io
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from examples.brain_tumour.brain_config import BrainConfig, add_settings
from examples.brain_tumour.brain_evaluation import evaluate, show
from examples.brain_tumour.brain_training import train
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError

WEIGHTINGS = {"manual": "manual:0.1,1.0", "learned": "uncertainty"}
FIGURES = ("dice_whole", "dice_enhancing", "dice_core", "mse", "weight_ratio")
COLUMNS = ("data", "weighting", "seed", *FIGURES)

Row = dict[str, Any]

PUBLISHED: list[Row] = [
    dict(zip(COLUMNS, values, strict=True))
    for values in (
        ("BraTS (report)", "manual", None, 0.8705, 0.5981, 0.2725, 0.0035, 0.1),
        ("BraTS (report)", "learned", None, 0.8812, 0.6062, 0.1502, 0.0036, 0.19),
    )
]
"""Table 2 of the report: real volumes of 184x200x152, another scale of intensities."""


def compare(out: Path, seeds: Sequence[int], **settings: Any) -> str:
    """Train with both weightings from every seed; writes and returns a table.

    Args:
        out: New folder for the runs, comparison.md and comparison.csv.
        seeds: For each seed, both weightings start from the same network and see the same volumes.
        settings: Fields of `BrainConfig`.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"--out: {out} should be a new or an empty folder")
    configs = [  # build all now, so that a wrong setting is found before the first hour
        (name, BrainConfig(out=out / f"{name}-{s}", weighting=weighting, seed=s, **settings))
        for s in seeds
        for name, weighting in WEIGHTINGS.items()
    ]
    rows = []
    for name, config in configs:
        train(config)
        metrics = evaluate(config)
        figures = {figure: metrics[figure] for figure in FIGURES}
        rows.append({"data": "generated", "weighting": name, "seed": config.seed, **figures})
    if len(seeds) > 1:
        rows += [mean_row(rows, name) for name in WEIGHTINGS]
    text = markdown(rows + PUBLISHED) + "\n" + verdict(rows, len(seeds))
    write_atomically(out / "comparison.csv", csv_text(rows + PUBLISHED))
    write_atomically(out / "comparison.md", text)
    return text


def mean_row(rows: list[Row], weighting: str) -> Row:
    """Return the mean over seeds."""
    own = [row for row in rows if row["weighting"] == weighting]
    means = {figure: fmean(row[figure] for row in own) for figure in FIGURES}
    return {"data": "generated", "weighting": weighting, "seed": "mean", **means}


def verdict(rows: list[Row], num_seeds: int) -> str:
    """Say what changed from manual to learned weights, whichever way it went."""
    manual, learned = rows[-2:]  # the means, or the only two
    changes = ", ".join(f"{f} {learned[f] - manual[f]:+.4f}" for f in FIGURES[:-1])
    return f"Learned minus manual, over {num_seeds} seed(s): {changes}.\n"


def markdown(rows: list[Row]) -> str:
    """Return the table for people."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for row in rows:
        seed = "-" if row["seed"] is None else str(row["seed"])
        cells = [row["data"], row["weighting"], seed, *(show(row[f]) for f in FIGURES)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def csv_text(rows: list[Row]) -> str:
    """Return the table for programs."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--out", type=Path, required=True, help="new folder for the runs and the table")
    add("--seeds", type=_seeds, metavar="S,S", help="one run of each weighting per seed (0)")
    add_settings(parser)


def run(out: Path, seeds: tuple[int, ...] = (0,), **given: Any) -> None:
    """Compare manual with learned weights on generated volumes."""
    print(compare(out, seeds, **given), end="")


def _seeds(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"should be numbers such as 0,1,2; found {text!r}")
    return tuple(int(part) for part in parts)
