"""Kills commands at random times, repeats them, and compares what they leave.

    python -m tests.examples.random_kills [--times 20] [--seed N]

Each of `train`, `prepare` and `predict` first runs undisturbed. Then it is killed by SIGKILL after
a random time and repeated (`train` by `--resume`), and everything in its folder should be as the
undisturbed command left it, bit by bit. The last result is in `random_kills.md`.
"""

import argparse
import datetime
import math
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TextIO

import torch

import uncertainty_mtl
from examples.common.checkpoint import read_checkpoint
from examples.common.command_line import positive_number, whole_number
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY, as_flags, assert_same, start
from tests.examples.tiny_tree import write_tree

RESULT = Path(__file__).with_suffix(".md")

TRAINING = {**TINY, "iterations": 60, "checkpoint_every": 2, "eval_every": 5}
"""So many writes that a kill is likely to hit one."""

Arguments = list[object]


class Case(NamedTuple):
    """A command to kill, which writes the folder `out`."""

    name: str
    out: Path
    first: Arguments
    again: Callable[[], Arguments]
    """The command to repeat, by what the killed one has left."""
    share: float
    """The number of kills, as a share of `--times`."""


class Trial(NamedTuple):
    """What came of one kill."""

    seconds: float
    """The time of the kill, in seconds after the start of the command."""
    was_killed: bool
    """False if the command had ended by then."""
    faults: list[str]


def cases(work: Path) -> list[Case]:
    """Return the commands, with the data that they need."""
    tree = write_tree(work / "scenes", train=6, val=2)
    large = write_tree(work / "large", train=40, val=12, size=(256, 512))  # 16 images in a shard
    # The same for all, as a run records its own path.
    out = work / "here" / "out"
    train = ["train", "--data", tree, "--out", out, *as_flags(TRAINING)]
    prepare = ["prepare", "--data", large, "--out", out, "--size", "256x512", "--workers"]
    images = tree / "leftImg8bit" / "train"
    predict = ["predict", "--run", work / "train" / "out", "--image", images, "--out", out]

    def resumed() -> Arguments:
        # A run that was killed before it wrote its settings is started again, not resumed.
        return ["train", "--out", out, "--resume"] if (out / "config.json").exists() else train

    return [
        Case("train", out, train, resumed, share=1),
        Case("prepare", out, [*prepare, 1], lambda: [*prepare, 1], share=0.75),
        Case("prepare, 2 workers", out, [*prepare, 2], lambda: [*prepare, 2], share=0.25),
        Case("predict", out, predict, lambda: predict, share=0.25),
    ]


def run(arguments: Arguments, kill_after: float | None = None) -> int:
    """Call a command; returns the exit status, -9 if it was killed."""
    process = start(arguments)
    process.join(kill_after)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode


def one_trial(case: Case, whole: Path, seconds: float, log: Path) -> Trial:
    """Kill a command, repeat it, and compare."""
    was_killed = run(case.first, seconds) == -signal.SIGKILL
    status = run(case.again())
    faults = differences(whole, case.out.parent)
    if status != 0:
        last = log.read_text(errors="replace").strip().splitlines()[-1]
        faults.insert(0, f"the repeated command ended with status {status}: {last}")
    return Trial(seconds, was_killed, faults)


def differences(whole: Path, folder: Path) -> list[str]:
    """Return how the files in two folders differ."""
    expected, found = files_below(whole), files_below(folder)
    faults = [f"{name} is missing" for name in sorted(expected - found)]
    faults += [f"{name} is left over" for name in sorted(found - expected)]
    for name in sorted(expected & found):
        if not is_same(whole / name, folder / name):
            faults.append(f"{name} differs")
    return faults


def is_same(one: Path, other: Path) -> bool:
    """Compare two files; torch promises to load what it has saved, not to save the same bytes."""
    if one.suffix != ".pt":
        return one.read_bytes() == other.read_bytes()
    try:
        assert_same(read_checkpoint(one), read_checkpoint(other))
    except (AssertionError, InputError):
        return False
    return True


def files_below(folder: Path) -> set[str]:
    """Return the names of the files, and of empty folders."""
    paths = [p for p in folder.rglob("*") if not p.is_dir() or not any(p.iterdir())]
    return {str(path.relative_to(folder)) for path in paths}


def kill_at_random(
    case: Case, times: int, work: Path, draw: random.Random, shown: TextIO
) -> list[Trial]:
    """Run a command undisturbed, then kill it so many times before it ends."""
    whole, folder = work / case.name, case.out.parent
    # Twice: the first time imports, and files that differ without a kill would prove nothing.
    for turn in (1, 2):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        begin = time.monotonic()
        status = run(case.first)
        duration = time.monotonic() - begin
        if turn == 1:
            shutil.rmtree(whole, ignore_errors=True)
            shutil.copytree(folder, whole)
        faults = differences(whole, folder)
        if status != 0 or faults:
            print(f"{case.name}, undisturbed: status {status} {'; '.join(faults[:3])}", file=shown)
            sys.exit(1)
    print(f"{case.name}: {duration:.1f} s undisturbed", file=shown)
    trials: list[Trial] = []
    while sum(trial.was_killed for trial in trials) < times and len(trials) < 5 * times:
        shutil.rmtree(folder)
        folder.mkdir()
        seconds = draw.uniform(0, duration)
        trial = one_trial(case, whole, seconds, work / "log.txt")
        trials.append(trial)
        ending = "killed" if trial.was_killed else "had ended"
        outcome = "; ".join(trial.faults[:3]) or "the same files"
        print(f"{len(trials):3}: {ending} after {seconds:.2f} s: {outcome}", file=shown)
    return trials


def page(results: dict[str, list[Trial]], times: int, seed: int) -> str:
    """Return the result as a page."""
    lines = [
        "# Commands killed at random times",
        "",
        f"`python -m tests.examples.random_kills --times {times} --seed {seed}`, "
        f"{datetime.date.today()}, Python {platform.python_version()}, torch {torch.__version__}, "
        f"uncertainty_mtl {uncertainty_mtl.__version__}.",
        "",
        "Each command was killed by SIGKILL and repeated. Its files should then be those of a",
        "command that nobody disturbed, bit by bit, and no others.",
        "",
        "| command | trials | killed | had ended by then | same files | other files |",
        "|---|---|---|---|---|---|",
    ]
    for name, trials in results.items():
        killed, good = sum(t.was_killed for t in trials), sum(not t.faults for t in trials)
        counts = (len(trials), killed, len(trials) - killed, good, len(trials) - good)
        lines.append(f"| {name} | " + " | ".join(map(str, counts)) + " |")
    faults = [(name, trial) for name, trials in results.items() for trial in trials if trial.faults]
    if faults:
        lines += ["", "What was other, of each trial the first three files:", ""]
        lines += [f"- {name}, {t.seconds:.2f} s: {'; '.join(t.faults[:3])}" for name, t in faults]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Kill every command, and write the page; returns 1 if any trial failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text = "kills of train, and of prepare; a quarter as many of predict (20)"
    parser.add_argument("--times", type=positive_number, default=20, help=text)
    parser.add_argument("--seed", type=whole_number, default=int(time.time()))
    options = parser.parse_args()
    shown = os.fdopen(os.dup(1), "w", buffering=1)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary).resolve()
        with (work / "log.txt").open("a") as log:  # what the commands print
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        draw, results = random.Random(options.seed), {}  # noqa: S311
        for case in cases(work):
            times = math.ceil(options.times * case.share)
            results[case.name] = kill_at_random(case, times, work, draw, shown)
    RESULT.write_text(text := page(results, options.times, options.seed))
    print(text, file=shown)
    return int(any(trial.faults for trials in results.values() for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
