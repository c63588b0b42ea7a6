"""The command line: `python -m examples.cityscapes <command>`."""

import os
import sys

from examples.common.command_line import run_program

# Read when torch is imported, further down. Its threads otherwise wait for each other by spinning,
# and on a CPU that something else uses as well, that makes training 10 to 40 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = "examples.cityscapes"
COMMANDS = {
    "synthesize": ("examples.rendered_scenes.write", "render street scenes with all labels"),
    "prepare": (f"{ROOT}.data.prepare", "write a resized copy that is fast to train on"),
    "train": (f"{ROOT}.training.train", "train a network"),
    "evaluate": (f"{ROOT}.evaluation.evaluate", "measure a run on the validation split"),
    "predict": (f"{ROOT}.commands.predict", "predict one image, or all in a folder"),
    "report": (f"{ROOT}.report.page", "write the page of a run, finished or not"),
    "demo": (f"{ROOT}.commands.demo", "all of it on rendered scenes, in about 5 minutes"),
    "table1": (f"{ROOT}.experiments.table1", "run the paper's table 1, over several seeds"),
    "sweep": (
        f"{ROOT}.experiments.sweep",
        "run the paper's figure 2: fixed weights of two tasks, and learned ones",
    ),
    "inits": (
        f"{ROOT}.experiments.inits",
        "start sigma at many values, and see whether it ends at one",
    ),
}
"""By name: the module with `add_arguments` and `run`, and what the command does."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    return run_program(
        "python -m examples.cityscapes",
        __doc__,
        COMMANDS,
        arguments,
        interrupted="interrupted; `train --resume` goes on from the last checkpoint",
    )


if __name__ == "__main__":
    sys.exit(main())
