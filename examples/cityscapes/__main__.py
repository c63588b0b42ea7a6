"""The command line: `python -m examples.cityscapes <command>`."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from examples.cityscapes.commands.actions import (
    complain,
    demo,
    evaluate,
    predict,
    prepare,
    report,
    synthesize,
    train,
)
from examples.cityscapes.commands.flags import add_config_flags, size
from examples.cityscapes.config import DEVICES
from examples.cityscapes.experiments.command_line import add_experiments
from examples.common.errors import InputError

# Read when torch is imported, further down. Its threads otherwise wait for each other by spinning,
# and on a CPU that something else uses as well, that makes training 10 to 40 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = vars(build_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        command(**options)
    except (InputError, OSError) as error:  # an OSError names its file: no space, no permission
        return complain(error, status=2)
    except KeyboardInterrupt:
        return complain("interrupted; `train --resume` goes on from the last checkpoint", 130)
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _OneLineParser(
        prog="python -m examples.cityscapes", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_synthesize(commands)
    _add_prepare(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_report(commands)
    _add_demo(commands)
    add_experiments(commands, _command)
    return parser


def _add_synthesize(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "synthesize", synthesize, "render street scenes with all labels")
    add("--out", type=Path, required=True, help="new folder for the dataset")
    add("--train", type=_count, default=300, metavar="N", help="scenes for training")
    add("--val", type=_count, default=50, metavar="N", help="scenes for validation")
    add("--size", type=size, default=(128, 256), metavar="HxW", help="of the images")
    add("--seed", type=_count, default=0)
    add("--classes", default="all", metavar="C", help="all 19 (default), or the common 12")
    add("--weather", default="clear", metavar="W", help="clear (default), rain, fog, snow or mixed")
    add("--time", default="day", metavar="T", help="day (default), dusk, night or mixed")
    noise = {"type": float, "default": 0.0}
    add("--label-noise", metavar="P", help="share of wrong pixels, training scenes (0)", **noise)
    add("--disparity-noise", metavar="S", help="in pixels, training scenes (0)", **noise)


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "prepare", prepare, "write a resized copy that is fast to train on")
    add("--data", type=Path, required=True, help="dataset in the official layout")
    add("--out", type=Path, required=True, help="folder of the copy; an earlier one is renewed")
    add("--size", type=size, default=(128, 256), metavar="HxW", help="of the copy (128x256)")
    add("--workers", type=_positive, metavar="N", help="processes that decode (one per core)")


def _add_train(commands: argparse._SubParsersAction) -> None:
    # What is not given is left to the preset, or, on resuming, to the recorded run.
    nothing = {"argument_default": argparse.SUPPRESS}
    add = _command(commands, "train", train, "train a network", **nothing)
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add_config_flags(add)


def _add_evaluate(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "evaluate", evaluate, "measure a run on the validation split")
    add("--run", type=Path, required=True, help="folder of the run; metrics.json goes there")
    add("--data", type=Path, required=True, help="dataset in the official layout, or prepared")
    add("--device", choices=DEVICES, default="auto")
    _add_checkpoint(add)
    add(
        "--official",
        action="store_true",
        help="also export predictions to RUN/official, and run cityscapesScripts on them",
    )
    _add_grouping(add)


def _add_predict(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "predict", predict, "predict one image, or all in a folder")
    add("--run", type=Path, required=True, help="folder of the run")
    add("--image", type=Path, required=True, help="an RGB image, or a folder with images")
    add("--out", type=Path, required=True, help="folder for the pictures and the arrays")
    add("--batch-size", type=_positive, default=1, metavar="N", help="images at once (1)")
    add(
        "--uncertainty",
        action="store_true",
        help="average over dropout masks, and add maps of epistemic and aleatoric uncertainty",
    )
    add("--samples", type=_positive, default=20, metavar="N", help="dropout masks (20)")
    add(
        "--arrays",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether to write NAME_arrays.npz (yes)",
    )
    add("--device", choices=DEVICES, default="auto")
    _add_checkpoint(add)
    _add_grouping(add)


def _add_report(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "report", report, "write the page of a run, finished or not")
    add("--run", type=Path, required=True, help="folder of the run; report.html goes there")
    add("--data", type=Path, help="dataset whose validation images are shown (none)")
    _add_checkpoint(add)


def _add_checkpoint(add: object) -> None:
    add(
        "--checkpoint",
        choices=("last", "best"),
        default="last",
        help="of the run: last (default), or best of its validations",
    )


def _add_grouping(add: object) -> None:
    nothing = {"default": argparse.SUPPRESS}
    add("--clustering", metavar="M", help="of votes: optics (default) or hdbscan", **nothing)
    add("--reach", type=float, metavar="X", help="of a vote, part of the width (0.012)", **nothing)
    add(
        "--min-area",
        type=float,
        metavar="X",
        help="smallest instance, part of a typical one (0.06)",
        **nothing,
    )


def _add_demo(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "demo", demo, "all of it on rendered scenes, in about 5 minutes")
    add("--out", type=Path, default=Path("runs/demo"), help="folder; an earlier demo is replaced")
    add("--compare", action="store_true", help="train with equal weights too (twice the time)")
    add("--seed", type=_count, default=0)
    add("--iterations", type=_positive, default=1800, metavar="N")
    add("--train-scenes", type=_positive, default=1500, metavar="N")
    add("--val-scenes", type=_positive, default=60, metavar="N")
    add("--size", type=size, default=(64, 128), metavar="HxW")


def _command(
    commands: argparse._SubParsersAction, name: str, run: object, text: str, **settings: object
) -> object:
    parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False, **settings)
    parser.set_defaults(command=run)
    return parser.add_argument


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"should be a whole number from 0 up; found {text!r}")
    return int(text)


def _positive(text: str) -> int:
    number = _count(text)
    if number == 0:
        raise argparse.ArgumentTypeError("should be at least 1; found 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
