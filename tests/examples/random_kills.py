"""Kills commands at random times, repeats them, and compares what they leave.

    python -m tests.examples.random_kills [--times 20] [--seed N] [--work FOLDER]

Each of `train`, `prepare` and `predict` first runs undisturbed. Then it is killed by SIGKILL after
a random time and repeated (`train` by `--resume`), and everything in its folder should be as the
undisturbed command left it, bit by bit. The last result is in `random_kills.md`.
"""

import argparse
import datetime
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
from typing import NamedTuple

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
    """A command to kill. It writes `out` in the folder in which it is called."""

    name: str
    first: Arguments
    again: Callable[[Path], Arguments]
    """The command to repeat, by what the killed one has left."""


class Trial(NamedTuple):
    """What came of one kill."""

    seconds: float
    """After the start."""
    was_killed: bool
    """False if the command had ended by then."""
    faults: list[str]


def cases(work: Path) -> dict[str, Case]:
    """Return the commands, with the data that they need."""
    tree = write_tree(work / "scenes", train=6, val=2)
    large = write_tree(work / "large", train=40, val=12, size=(256, 512))  # 16 images in a shard
    train = ["train", "--data", tree, "--out", "out", *as_flags(TRAINING)]
    prepare = ["prepare", "--data", large, "--out", "out", "--size", "256x512", "--workers"]
    images = tree / "leftImg8bit" / "train"
    predict = ["predict", "--run", work / "train/out", "--image", images, "--out", "out"]

    def resumed(out: Path) -> Arguments:
        # A run that was killed before it had written its settings is none yet.
        return ["train", "--out", "out", "--resume"] if (out / "config.json").exists() else train

    return {
        "train": Case("train", train, resumed),
        "prepare": Case("prepare", [*prepare, 1], lambda _: [*prepare, 1]),
        "prepare, 2 workers": Case("prepare, 2 workers", [*prepare, 2], lambda _: [*prepare, 2]),
        "predict": Case("predict", predict, lambda _: predict),
    }


def run(arguments: Arguments, folder: Path, kill_after: float | None = None) -> int:
    """Call a command in a folder; returns the exit status, -9 if it was killed."""
    folder.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(folder)
    try:
        process = start(arguments)
    finally:
        os.chdir(before)
    process.join(kill_after)
    if process.is_alive():
        process.kill()
    process.join()
    return process.exitcode


def one_trial(case: Case, whole: Path, folder: Path, seconds: float, log: Path) -> Trial:
    """Kill a command, repeat it, and compare."""
    was_killed = run(case.first, folder, seconds) == -signal.SIGKILL
    status = run(case.again(folder / "out"), folder)
    faults = differences(whole, folder)
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
    case: Case, times: int, work: Path, draw: random.Random, say: Callable[[str], None]
) -> list[Trial]:
    """Run a command undisturbed, then kill it so many times before it ends."""
    whole, folder = work / case.name.replace(", ", "_").replace(" ", "_"), work / "killed"
    # Twice: the first time imports, and files that differ without a kill would prove nothing.
    for where in (whole, folder):
        shutil.rmtree(where, ignore_errors=True)
        begin = time.monotonic()
        status = run(case.first, where)
        duration = time.monotonic() - begin
        faults = differences(whole, where)
        if status != 0 or faults:
            raise SystemExit(f"{case.name}, undisturbed: status {status} {'; '.join(faults)}")
    say(f"{case.name}: {duration:.1f} s undisturbed")
    trials: list[Trial] = []
    while sum(trial.was_killed for trial in trials) < times and len(trials) < 5 * times:
        shutil.rmtree(folder)
        seconds = draw.uniform(0, duration)
        trial = one_trial(case, whole, folder, seconds, work / "log.txt")
        trials.append(trial)
        ending = "killed" if trial.was_killed else "had ended"
        outcome = "; ".join(trial.faults) or "the same"
        say(f"{case.name} {len(trials)}: {ending} after {seconds:.2f} s: {outcome}")
    return trials


def page(results: dict[str, list[Trial]], seed: int, command: str) -> str:
    """Return the result as a page."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, "
    versions += f"uncertainty_mtl {uncertainty_mtl.__version__}, {platform.system()}"
    lines = [
        "# Commands killed at random times",
        "",
        f"`{command}`, {datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}, seed {seed}, "
        f"{versions}.",
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
        lines += ["", "What was other:", ""]
        lines += [f"- {name}, {t.seconds:.2f} s: {'; '.join(t.faults)}" for name, t in faults]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Kill every command, and write the page; returns 1 if any trial failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text = "kills of train, and of prepare; a quarter as many of predict (20)"
    parser.add_argument("--times", type=positive_number, default=20, help=text)
    parser.add_argument("--seed", type=whole_number, default=int(time.time()))
    parser.add_argument("--work", type=Path, help="folder for the files (a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.work or Path(temporary)).resolve()
        work.mkdir(parents=True, exist_ok=True)
        shown = os.fdopen(os.dup(1), "w", buffering=1)
        with (work / "log.txt").open("a") as log:  # what the commands print
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        draw, results = random.Random(options.seed), {}  # noqa: S311
        quarter = -(-options.times // 4)
        times = {
            "train": options.times,
            "prepare": options.times - quarter,
            "prepare, 2 workers": quarter,
            "predict": quarter,
        }
        for name, case in cases(work).items():
            results[name] = kill_at_random(
                case, times[name], work, draw, lambda line: print(line, file=shown)
            )
    command = f"python -m tests.examples.random_kills --times {options.times}"
    RESULT.write_text(text := page(results, options.seed, command))
    print(text, file=shown)
    return int(any(trial.faults for trials in results.values() for trial in trials))


if __name__ == "__main__":
    sys.exit(main())
