"""Command lines whose every refusal is one line."""

import argparse
import sys
from importlib import import_module
from typing import NoReturn

from examples.common.errors import InputError, NonFiniteLossError


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Exit with the line."""
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def run_program(
    prog: str,
    text: str | None,
    commands: dict[str, tuple[str, str]],
    arguments: list[str] | None,
    interrupted: str = "interrupted",
) -> int:
    """Run the command that was asked for; returns the exit status.

    Args:
        prog: How the program is called.
        text: What it is.
        commands: By name, a module and what the command does. The module has the functions
            `add_arguments(parser)` and `run(**options)`. It is imported only if it is asked for:
            the list of commands need not wait for torch.
        arguments: Of the command line; those of this process by default.
        interrupted: What to say after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = OneLineParser(prog=prog, description=text, allow_abbrev=False)
    choices = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, (module, what) in commands.items():
        command = choices.add_parser(name, help=what, description=what, allow_abbrev=False)
        if arguments[:1] == [name]:
            import_module(module).add_arguments(command)
    try:
        options = vars(parser.parse_args(arguments))
        import_module(commands[options.pop("command")][0]).run(**options)
    except (InputError, OSError) as error:  # an OSError names its file: no space, no permission
        return complain(error, status=2)
    except NonFiniteLossError as error:
        return complain(error, status=1)
    except KeyboardInterrupt:
        return complain(interrupted, status=130)
    return 0


def complain(message: object, status: int) -> int:
    """Print the one line of a refused command; returns the exit status."""
    line = " ".join(str(message).split())
    print(f"error: {line}", file=sys.stderr)
    return status


def whole_number(text: str) -> int:
    """Read a whole number from 0 up."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"should be a whole number from 0 up; found {text!r}")
    return int(text)


def positive_number(text: str) -> int:
    """Read a whole number from 1 up."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"should be a whole number from 1 up; found {text!r}")
    return int(text)


def height_and_width(text: str) -> tuple[int, int]:
    """Read HEIGHTxWIDTH."""
    height, separator, width = text.partition("x")
    if not (separator and height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"should be HEIGHTxWIDTH, such as 128x256; found {text!r}")
    return int(height), int(width)


def seeds(text: str) -> tuple[int, ...]:
    """Read how many seeds, or a list of different ones with commas."""
    if "," not in text:
        return tuple(range(positive_number(text)))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(map(str.isdecimal, parts)) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(
            f"should be how many, or different seeds with commas; found {text!r}"
        )
    return tuple(map(int, parts))
