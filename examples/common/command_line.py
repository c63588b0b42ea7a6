"""Command lines that report every error in one line."""

import argparse
import sys
from importlib import import_module
from typing import NamedTuple, NoReturn

from examples.common.endings import Ending, ending_of, may_speak
from examples.common.interrupt import ctrl_c_exits


class Command(NamedTuple):
    """One command of a program."""

    module: str
    """The name of a module with the functions `add_arguments(parser)` and `run(**options)`. It is
    imported only to run the command, so that listing all commands need not wait for torch."""
    summary: str
    """What the command does."""
    interrupted: str = ""
    """The message after Ctrl-C, if that is always the same."""
    less_memory: str = "try a smaller --size"
    """The advice that follows "needs more memory"."""


class OneLineParser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        """Exit with the line."""
        sys.exit(complain(Ending(f"{message} (see {self.prog} --help)", 2)))


def run_program(
    prog: str, text: str | None, commands: dict[str, Command], arguments: list[str] | None
) -> int:
    """Run the command that was asked for; returns the exit status.

    Args:
        prog: How the program is called.
        text: Description of the program.
        commands: Its commands by name.
        arguments: Arguments of the command line; those of this process by default.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = OneLineParser(prog=prog, description=text, allow_abbrev=False)
    choices = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    chosen = Command("", "")
    try:
        # Importing torch takes seconds, and breaks in many ways when it is interrupted.
        with ctrl_c_exits("error: interrupted"):
            for name, command in commands.items():
                what = command.summary
                flags = choices.add_parser(name, help=what, description=what, allow_abbrev=False)
                if arguments[:1] == [name]:
                    import_module(command.module).add_arguments(flags)
            options = vars(parser.parse_args(arguments))
            chosen = commands[options.pop("command")]
            module = import_module(chosen.module)
        module.run(**options)
    except (Exception, KeyboardInterrupt) as error:
        ending = ending_of(error, interrupted=chosen.interrupted, less_memory=chosen.less_memory)
        if ending is not None:
            return complain(ending)
        if may_speak():
            raise
        return 1
    return 0


def complain(ending: Ending) -> int:
    """Print the one line of a command that has failed; returns the exit status."""
    if ending.line is not None and may_speak():
        print("error:", " ".join(ending.line.split()), file=sys.stderr)
    return ending.status


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
    if not (separator and height.isdecimal() and width.isdecimal() and int(height) * int(width)):
        raise argparse.ArgumentTypeError(f"should be HEIGHTxWIDTH, such as 128x256; found {text!r}")
    return int(height), int(width)


def seeds(text: str) -> tuple[int, ...]:
    """Read how many seeds, or a list of different ones with commas."""
    if "," not in text and text.isdecimal() and 1 <= int(text) <= _MOST_SEEDS:
        return tuple(range(int(text)))
    parts = [part.strip() for part in text.split(",") if part.strip()]
    is_list = "," in text and parts and all(map(str.isdecimal, parts))
    if not is_list or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(
            f"should be how many, at most {_MOST_SEEDS}, or different seeds with commas; found "
            f"{text!r}"
        )
    return tuple(map(int, parts))


_MOST_SEEDS = 1000
"""A larger number is rather meant as a seed."""
