"""The command line: `python -m examples.brain_tumour <command>`."""

import os
import sys

from examples.common.command_line import Command, run_program

# Read when torch is imported, further down. Its threads otherwise wait for each other by spinning,
# which on a CPU that something else uses as well slows training down many times.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = "examples.brain_tumour"
COMMANDS = {
    "train": Command(
        f"{ROOT}.brain_training", "train a network", less_memory="try a smaller --batch-size"
    ),
    "evaluate": Command(f"{ROOT}.brain_evaluation", "measure a run on the validation cases"),
    "compare": Command(f"{ROOT}.compare", "manual against learned, on generated volumes"),
}
"""The commands by name."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    return run_program("python -m examples.brain_tumour", __doc__, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
