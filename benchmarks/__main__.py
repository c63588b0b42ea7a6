"""`python -m benchmarks` lists the benchmarks, `python -m benchmarks NAME` runs one."""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

import torch

from benchmarks.result_file import describe_run, markdown, result_path
from benchmarks.run_settings import EFFORTS, Settings
from examples.common.checkpoint import write_atomically
from examples.common.command_line import positive_number
from examples.common.errors import InputError

NAMES = (
    "weighting_cost",
    "dense_maps",
    "memory",
    "training_step",
    "weighting",
    "weighting_scenes",
    "sigma_rate",
)
"""The benchmarks, each a module. The first line of its docstring is its summary."""


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for, and return the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser()
    options = vars(parser.parse_args(arguments))
    name, effort, device, out = (options.pop(key) for key in ("name", "effort", "device", "out"))
    if name is None and effort is None:
        print_list()
        return 0
    if name is None and out is not None:
        parser.error("--out: name one benchmark; without a name, each has its own file")
    if device == "cuda" and not torch.cuda.is_available():
        # This is not an error, so that a script can run everything on every machine.
        print("skipped: --device cuda was asked for, but torch finds no GPU", file=sys.stderr)
        return 0
    settings = Settings(effort=effort or "full", device=torch.device(device), **options)
    command = " ".join(["python -m benchmarks", *arguments])
    try:
        for each in NAMES if name is None else (name,):
            run_one(each, settings, command, out or result_path(each, settings.effort))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run_one(name: str, settings: Settings, command: str, out: Path) -> None:
    """Run a benchmark, print what it found, and write it to `out`."""
    module = importlib.import_module(f"benchmarks.{name}")
    threads, load, start = torch.get_num_threads(), os.getloadavg(), time.monotonic()
    # The training step uses all cores, as a training does; everything else is measured on one.
    torch.set_num_threads(threads if name == "training_step" else 1)
    torch.manual_seed(settings.seed)
    try:
        report = module.run(settings)
        recipe = describe_run(command, settings, load)
    finally:
        torch.set_num_threads(threads)
    recipe["duration"] = f"{time.monotonic() - start:.0f} s"
    text = markdown(report, recipe)
    out.parent.mkdir(parents=True, exist_ok=True)
    for ending, content in report.files.items():
        write_atomically(out.with_suffix(f".{ending}"), content)
    write_atomically(out, text)
    print(text)
    print(f"wrote {out}", file=sys.stderr)


def print_list() -> None:
    """Print every benchmark with its summary."""
    for name in NAMES:
        summary = importlib.import_module(f"benchmarks.{name}").__doc__.splitlines()[0]
        print(f"{name:14}  {summary}")
    print("\nRun one with `python -m benchmarks NAME`, or all of them with `--quick`.")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("name", nargs="?", choices=NAMES, metavar="NAME", help="benchmark to run; none: list them")
    add("--effort", choices=EFFORTS, help="full by default; smoke only tests that it runs")
    add("--quick", dest="effort", action="store_const", const="quick", help="--effort quick")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--repeats", type=positive_number, help="number of rounds or seeds")
    add("--seed", type=int, default=0)
    add("--data", type=Path, help="CityScapes in the official layout, instead of generated scenes")
    add("--work", type=Path, help="folder that keeps scenes and trainings for the next run")
    add("--out", type=Path, help="result file (benchmarks/results/DATE_NAME.md)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
