"""The commands `table1`, `sweep` and `inits`."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.cityscapes.commands.flags import add_config_flags
from examples.cityscapes.experiments.training import DECIDED

# As in `__main__`, a command imports what it needs when it runs.


def table1(**options: Any) -> None:
    """Run both tables."""
    from examples.cityscapes.experiments.table1 import table1

    _run(table1, options)


def sweep(**options: Any) -> None:
    """Run figure 2."""
    from examples.cityscapes.experiments.sweep import sweep

    _run(sweep, options)


def inits(**options: Any) -> None:
    """Run the starts of sigma."""
    from examples.cityscapes.experiments.inits import inits

    _run(inits, options)


def add_experiments(
    commands: argparse._SubParsersAction, add_command: Callable[..., Callable[..., object]]
) -> None:
    """Add the three commands to a parser.

    Args:
        commands: Where to.
        add_command: Takes this, a name, a function and a help text; returns `add_argument`.
    """
    nothing = {"argument_default": argparse.SUPPRESS}
    text = "run the paper's table 1, over several seeds"
    _add_options(add_command(commands, "table1", table1, text, **nothing))
    text = "run the paper's figure 2: fixed weights of two tasks, and learned ones"
    add = add_command(commands, "sweep", sweep, text, **nothing)
    add("--figure", choices=("a", "b", "both"), help="which half: semantic or instance, and depth")
    _add_options(add)
    text = "start sigma at many values, and see whether it ends at one"
    _add_options(add_command(commands, "inits", inits, text, **nothing), without=("sigma_init",))


def _add_options(add: Callable[..., object], without: tuple[str, ...] = ()) -> None:
    add("--out", type=Path, required=True, help="folder; an interrupted experiment goes on there")
    add("--data", type=Path, help="dataset (default: scenes are rendered into --out)")
    add("--seeds", type=_seeds, metavar="N", help="how many, or a list with commas: 3, or 4,5,9")
    add("--quick", action="store_true", help="a small network and few scenes: below half an hour")
    add("--workers", type=_positive, metavar="N", help="runs side by side (one per core)")
    left_out = {"--" + name.replace("_", "-") for name in (*DECIDED, *without)}

    def add_other(flag: str, **settings: object) -> None:
        if flag not in left_out:
            add(flag, **settings)

    add_config_flags(add_other)


def _run(experiment: Callable[..., Any], options: dict[str, Any]) -> None:
    from examples.cityscapes.experiments.runs import InterruptedRunsError

    try:
        outcome = experiment(**options)
    except InterruptedRunsError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.status)
    if outcome.failures:
        failed, runs = len(outcome.failures), len(outcome.folders)
        print(f"error: {failed} of {runs} runs failed; see above", file=sys.stderr)
        sys.exit(1)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"should be a whole number from 1 up; found {text!r}")
    return int(text)


def _seeds(text: str) -> tuple[int, ...]:
    if "," not in text:
        return tuple(range(_positive(text)))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(map(str.isdecimal, parts)) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(
            f"should be how many, or different seeds with commas; found {text!r}"
        )
    return tuple(map(int, parts))
