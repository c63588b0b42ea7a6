"""The command line: `python -m examples.brain_tumour <command>`."""

import os
import sys

from examples.common.command_line import run_program

# Read when torch is imported, further down. Its threads otherwise wait for each other by spinning,
# which on a CPU that something else uses as well slows training down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = "examples.brain_tumour"
COMMANDS = {
    "train": (f"{ROOT}.brain_training", "train a network"),
    "evaluate": (f"{ROOT}.brain_evaluation", "measure a run on the validation cases"),
    "compare": (f"{ROOT}.compare", "manual against learned, on generated volumes"),
}
"""By name: the module with `add_arguments` and `run`, and what the command does."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    return run_program("python -m examples.brain_tumour", __doc__, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
