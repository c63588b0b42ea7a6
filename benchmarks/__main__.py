"""`python -m benchmarks` lists the benchmarks, `python -m benchmarks NAME` runs one."""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import torch

from benchmarks.result_file import describe_run, markdown, result_path, write_result
from benchmarks.run_settings import EFFORTS, Settings
from examples.common.errors import InputError

NAMES = (
    "weighting_cost",
    "dense_maps",
    "memory",
    "training_step",
    "weighting",
    "sigma_rate",
)
"""One module each: its docstring's first line is the summary; `run` takes Settings."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = build_parser()
    given = parser.parse_args(arguments)
    effort = "quick" if given.quick else given.effort
    if given.name is None and effort is None:
        print_list()
        return 0
    if given.name is None and given.out is not None:
        parser.error("--out: needs the name of one benchmark; all write files of their own")
    if given.device == "cuda" and not torch.cuda.is_available():
        # Not an error: a script runs everything everywhere, and skips what a machine lacks.
        print("skipped: --device cuda was asked for, but torch finds no GPU", file=sys.stderr)
        return 0
    settings = Settings(
        effort=effort or "full",
        device=torch.device(given.device),
        repeats=given.repeats,
        seed=given.seed,
        data=given.data,
        work=given.work,
    )
    command = " ".join(["python -m benchmarks", *arguments])
    try:
        for name in NAMES if given.name is None else (given.name,):
            module = importlib.import_module(f"benchmarks.{name}")
            out = given.out or result_path(name, settings.effort)
            run_one(module, settings, given.threads, command, out)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def run_one(
    module: ModuleType, settings: Settings, threads: int | None, command: str, out: Path
) -> None:
    """Run a benchmark, print what it found, and write it to `out`."""
    before, load = torch.get_num_threads(), os.getloadavg()
    torch.set_num_threads(threads or module.THREADS or before)
    start = time.monotonic()
    try:
        torch.manual_seed(settings.seed)
        report = module.run(settings)
        recipe = describe_run(command, settings, load)
    finally:
        torch.set_num_threads(before)
    recipe["duration"] = f"{time.monotonic() - start:.0f} s"
    text = markdown(report, recipe)
    for ending, content in report.files.items():
        write_result(out.with_suffix(f".{ending}"), content)
    write_result(out, text.encode())
    print(text)
    print(f"wrote {out}", file=sys.stderr)


def print_list() -> None:
    """Print every benchmark with its summary."""
    width = max(map(len, NAMES))
    for name in NAMES:
        summary = (importlib.import_module(f"benchmarks.{name}").__doc__ or "").splitlines()[0]
        print(f"{name:{width}}  {summary}")
    print("\nRun one with `python -m benchmarks NAME`, all of them with `--quick`.")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add("name", nargs="?", choices=NAMES, metavar="NAME", help="benchmark to run; none: list them")
    add("--quick", action="store_true", help="a few repeats of small cases")
    add("--effort", choices=EFFORTS, help="full unless said otherwise; smoke: whether it runs")
    add("--device", choices=("cpu", "cuda"), default="cpu")
    add("--threads", type=_positive, help="of torch; else the benchmark's own, or torch's")
    add("--repeats", type=_positive, help="rounds instead of the benchmark's own number")
    add("--seed", type=int, default=0)
    add("--data", type=Path, help="CityScapes in the official layout (generated scenes)")
    add("--work", type=Path, help="keep scenes and trainings here, and go on from them")
    add("--out", type=Path, help="result file (benchmarks/results/DATE_NAME.md)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number from 1 up; found {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
