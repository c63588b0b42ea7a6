"""The command line: `python -m examples.cityscapes <command>`."""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from examples.cityscapes.config import DEVICES, load_config, new_config, resume_config
from examples.cityscapes.errors import InputError
from examples.cityscapes.flags import add_config_flags, size

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
        return _complain(error, status=2)
    except KeyboardInterrupt:
        return _complain("interrupted; `train --resume` goes on from the last checkpoint", 130)
    return 0


# The commands import what they need when they run: an argument error or --help need not wait for
# torch, scikit-learn and matplotlib.


def synthesize(out: Path, **options: object) -> None:
    """Render street scenes."""
    from examples.cityscapes.synthetic import synthesize

    synthesize(out, **options)


def prepare(data: Path, out: Path, size: tuple[int, int], workers: int | None) -> None:
    """Write a resized copy that trains without decoding images."""
    from examples.cityscapes.prepare import prepare

    for split, count in prepare(data, out, size, workers=workers).items():
        print(f"{split}: {count} images of {size[0]}x{size[1]} in {out / split}")


def train(resume: bool = False, **given: object) -> None:
    """Train a network."""
    from examples.cityscapes.metric_log import NonFiniteLossError
    from examples.cityscapes.train import train

    if "out" not in given:
        raise InputError("--out: needed, the folder of the run")
    if not resume and "data" not in given:
        raise InputError("--data: needed, unless a run is resumed")
    config = resume_config(given["out"], given) if resume else new_config(given)
    try:
        train(config, resume=resume)
    except NonFiniteLossError as error:
        sys.exit(_complain(error, status=1))


def evaluate(run: Path, data: Path, device: str, official: bool, **grouping: object) -> None:
    """Measure a run on the validation split."""
    from examples.cityscapes.evaluate import evaluate
    from examples.cityscapes.instances import Grouping
    from examples.cityscapes.tables import full_summary

    chosen, config = Grouping(**grouping), load_config(run)
    print(full_summary(config, evaluate(config, data, device, official=official, grouping=chosen)))


def predict(run: Path, image: Path, out: Path, device: str, **grouping: object) -> None:
    """Predict one image."""
    from examples.cityscapes.instances import Grouping
    from examples.cityscapes.predict import predict

    for path in predict(load_config(run), image, out, device, Grouping(**grouping)):
        print(path)


def demo(**options: object) -> None:
    """Render, train, evaluate and report."""
    from examples.cityscapes.demo import demo

    print(demo(**options))


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
    _add_demo(commands)
    return parser


def _add_synthesize(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "synthesize", synthesize, "render street scenes with all labels")
    add("--out", type=Path, required=True, help="new folder for the dataset")
    add("--train", type=_count, default=300, metavar="N", help="scenes for training")
    add("--val", type=_count, default=50, metavar="N", help="scenes for validation")
    add("--size", type=size, default=(128, 256), metavar="HxW", help="of the images")
    add("--seed", type=_count, default=0)
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
    add(
        "--official",
        action="store_true",
        help="also export predictions to RUN/official, and run cityscapesScripts on them",
    )
    _add_grouping(add)


def _add_predict(commands: argparse._SubParsersAction) -> None:
    add = _command(commands, "predict", predict, "predict one image")
    add("--run", type=Path, required=True, help="folder of the run")
    add("--image", type=Path, required=True, help="an RGB image")
    add("--out", type=Path, required=True, help="folder for the panels and the arrays")
    add("--device", choices=DEVICES, default="auto")
    _add_grouping(add)


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


def _complain(message: object, status: int) -> int:
    line = " ".join(str(message).split())
    print(f"error: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
