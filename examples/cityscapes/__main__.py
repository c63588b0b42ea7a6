"""The command line: `python -m examples.cityscapes <command>`."""

import os
import sys

from examples.common.command_line import Command, run_program

# torch reads this when it is imported, further down. By default its threads wait for each other in
# busy loops, which makes training 10 to 40 times slower on a CPU that other programs use as well.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = "examples.cityscapes"
GOES_ON = "the same command goes on"
SMALLER_BATCHES = "try a smaller --batch-size"
COMMANDS = {
    "synthesize": Command("examples.rendered_scenes.write", "render street scenes with all labels"),
    "check": Command(
        f"{ROOT}.data.check",
        "list all problems of a dataset",
        less_memory="close other programs",
    ),
    "prepare": Command(
        f"{ROOT}.data.prepare",
        "write a resized copy that is fast to train on",
        interrupted=f"interrupted; {GOES_ON} where it was",
        less_memory="try fewer --workers",
    ),
    "train": Command(f"{ROOT}.training.train", "train a network", less_memory=SMALLER_BATCHES),
    "evaluate": Command(
        f"{ROOT}.evaluation.evaluate",
        "measure a run on the validation split",
        less_memory="close other programs, or measure a run of a smaller --size",
    ),
    "predict": Command(
        f"{ROOT}.commands.predict",
        "predict one image, or all in a folder",
        interrupted="interrupted; what has been predicted stays",
        less_memory=f"{SMALLER_BATCHES}, or smaller images",
    ),
    "export": Command(
        f"{ROOT}.commands.export",
        "write a run's network as an ONNX file",
        less_memory="close other programs, or export a run of a smaller --size",
    ),
    "report": Command(
        f"{ROOT}.report.page",
        "write the page of a run, finished or not",
        less_memory="close other programs, or leave out --data: the page then has no pictures",
    ),
    "demo": Command(
        f"{ROOT}.commands.demo",
        "all of it on rendered scenes, in 5 to 15 minutes",
        interrupted="interrupted; an earlier demo is still there",
    ),
    "table1": Command(
        f"{ROOT}.experiments.table1",
        "run the paper's table 1, over several seeds",
        f"interrupted; {GOES_ON}",
        SMALLER_BATCHES,
    ),
    "two_task": Command(
        f"{ROOT}.experiments.two_task",
        "run the table of papers on multi-task learning: 7 classes and inverse depth",
        f"interrupted; {GOES_ON}",
        SMALLER_BATCHES,
    ),
    "sweep": Command(
        f"{ROOT}.experiments.sweep",
        "run the paper's figure 2: fixed weights of two tasks, and learned ones",
        f"interrupted; {GOES_ON}",
        SMALLER_BATCHES,
    ),
    "inits": Command(
        f"{ROOT}.experiments.inits",
        "start sigma at many values, and see whether it ends at one",
        f"interrupted; {GOES_ON}",
        SMALLER_BATCHES,
    ),
}
"""The commands by name."""


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    return run_program("python -m examples.cityscapes", __doc__, COMMANDS, arguments)


if __name__ == "__main__":
    sys.exit(main())
