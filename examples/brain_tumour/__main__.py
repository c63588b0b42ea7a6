"""The command line: `python -m examples.brain_tumour <command>`."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from examples.brain_tumour.config import DEVICES, MODALITIES, TrainConfig, load_config
from examples.brain_tumour.errors import InputError, NonFiniteLossError

# Read when torch is imported, further down. Its threads otherwise wait for each other by spinning,
# which on a CPU that something else uses as well slows training down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    options = vars(build_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        command(**options)
    except (InputError, OSError) as error:  # an OSError names its file: no space, no permission
        return _complain(error, status=2)
    except NonFiniteLossError as error:
        return _complain(error, status=1)
    except KeyboardInterrupt:
        return _complain("interrupted", status=130)
    return 0


# The commands import what they need when they run: an argument error or --help need not wait for
# torch.


def train(**given: Any) -> None:
    """Train a network."""
    from examples.brain_tumour.train import train

    train(TrainConfig(**given))


def evaluate(run: Path, **given: Any) -> None:
    """Measure a run on the validation cases."""
    import dataclasses

    from examples.brain_tumour.evaluate import evaluate, summary

    print(summary(evaluate(dataclasses.replace(load_config(run), **given))))


def compare(out: Path, seeds: tuple[int, ...] = (0,), **given: Any) -> None:
    """Compare manual with learned weights on generated volumes."""
    from examples.brain_tumour.compare import compare

    print(compare(out, seeds, **given), end="")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = _OneLineParser(
        prog="python -m examples.brain_tumour", description=__doc__, allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = _command(commands, "train", train, "train a network")
    add("--out", type=Path, required=True, help="new folder for the run")
    add("--data", type=Path, help="folder of BraTS cases; volumes are generated without it")
    add("--weighting", help="uncertainty, or manual:SEGMENTATION,SYNTHESIS such as manual:0.1,1.0")
    add("--seed", type=int, metavar="S")
    _add_settings(add)

    add = _command(commands, "evaluate", evaluate, "measure a run on the validation cases")
    add("--run", type=Path, required=True, help="folder of the run; metrics.json goes there")
    add("--data", type=Path, help="BraTS folder, if it has moved since")
    add("--device", choices=DEVICES)

    add = _command(commands, "compare", compare, "manual against learned, on generated volumes")
    add("--out", type=Path, required=True, help="new folder for the runs and the table")
    add("--seeds", type=_seeds, metavar="S,S", help="one run of each weighting per seed (0)")
    _add_settings(add)
    return parser


def _add_settings(add: Any) -> None:
    # What is not given is left to TrainConfig.
    add("--missing", choices=MODALITIES, help="the modality to synthesise (flair)")
    add("--size", type=_size, metavar="DxHxW", help="multiples of 8 from 16 up (24x32x32)")
    add("--cases", type=int, metavar="N", help="generated volumes to train on (40)")
    add("--iterations", type=int, metavar="N", help="optimizer steps (400)")
    add("--batch-size", type=int, metavar="B", help="volumes per step (1)")
    add("--base-width", type=int, metavar="K", help="of the network (4)")
    add("--lr", type=float, metavar="X", help="of the network (2e-4)")
    add("--sigma-lr", type=float, metavar="X", help="of the log variances (1e-2)")
    add("--device", choices=DEVICES)


def _command(commands: "argparse._SubParsersAction[Any]", name: str, run: object, text: str) -> Any:
    parser = commands.add_parser(
        name,
        help=text,
        description=text,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.set_defaults(command=run)
    return parser.add_argument


class _OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _size(text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"should be DxHxW, such as 24x32x32; found {text!r}")
    return tuple(int(part) for part in parts)


def _seeds(text: str) -> tuple[int, ...]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(f"should be numbers such as 0,1,2; found {text!r}")
    return tuple(int(part) for part in parts)


def _complain(message: object, status: int) -> int:
    line = " ".join(str(message).split())
    print(f"error: {line}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
