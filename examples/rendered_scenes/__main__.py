"""Render street scenes: `python -m examples.rendered_scenes render --out FOLDER`."""

import sys

from examples.common.command_line import Command, run_program

COMMANDS = {
    "render": Command("examples.rendered_scenes.write", "render street scenes with all labels")
}


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    return run_program("python -m examples.rendered_scenes", __doc__, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
