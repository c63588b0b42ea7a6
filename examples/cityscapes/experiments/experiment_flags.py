"""What the commands of all experiments share: their options, and how they end."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.cityscapes.experiments.experiment import ExperimentOutcome
from examples.cityscapes.experiments.runs import InterruptedRunsError
from examples.cityscapes.experiments.training import DECIDED
from examples.cityscapes.flags import add_config_flags
from examples.common.command_line import positive_number, seeds
from examples.common.flag_text import flag_of


def add_options(parser: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    """Add what every experiment can be told, without the settings that it decides by itself."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--out", type=Path, required=True, help="folder; an interrupted experiment goes on there")
    add("--data", type=Path, help="dataset (default: scenes are rendered into --out)")
    add("--seeds", type=seeds, metavar="N", help="how many, or a list with commas: 3, or 4,5,9")
    add("--quick", action="store_true", help="a small network and few scenes: tens of minutes")
    add("--workers", type=positive_number, metavar="N", help="runs side by side (one per core)")
    left_out = {flag_of(name) for name in (*DECIDED, "protocol", *without)}

    def add_other(flag: str, **settings: Any) -> None:
        if flag not in left_out:
            add(flag, **settings)

    add_config_flags(add_other)


def run_to_the_end(experiment: Callable[..., ExperimentOutcome], options: dict[str, Any]) -> None:
    """Run an experiment, and end with its status."""
    try:
        outcome = experiment(**options)
    except InterruptedRunsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    if outcome.failures:
        failed, runs = len(outcome.failures), len(outcome.folders)
        print(f"error: {failed} of {runs} runs failed; see above", file=sys.stderr)
        sys.exit(1)
