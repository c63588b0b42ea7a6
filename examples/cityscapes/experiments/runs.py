"""Several runs side by side, each in a process of its own, until all of them are measured."""

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Iterable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypedDict, cast, get_type_hints

from tqdm import tqdm

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.experiments.child import run_one
from examples.cityscapes.experiments.results import FIGURES
from examples.common.interrupt import TERMINATIONS, children_without_ctrl_c, noted_signals
from examples.common.json_types import Measured, NotNegative, PositiveInt
from examples.common.records import read_object


class Result(TypedDict):
    """The figures.json of a finished run, beside its figures."""

    num_images: PositiveInt
    seconds: NotNegative | None
    """How long the run took; None if it was interrupted."""
    setup: dict[str, str | PositiveInt | None]


class InterruptedRunsError(Exception):
    """Stopped from outside; `status` is the exit status that shells expect."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def run_all(configs: Sequence[TrainConfig], workers: int) -> dict[str, str]:
    """Run the unfinished runs, and return the reasons of failures by the names of the runs.

    A failure is printed at once, and the other runs go on. The cores are shared out evenly among
    the runs that train side by side: as many as there are workers, or fewer if fewer are left.

    Raises:
        InterruptedRunsError: On Ctrl-C, SIGTERM or SIGHUP, when all processes have saved and ended.
    """
    waiting = deque(config for config in configs if not is_finished(config.out))
    workers = max(1, min(workers, len(waiting)))
    num_threads = max(1, (os.cpu_count() or 1) // workers)
    running: dict[int, tuple[BaseProcess, TrainConfig]] = {}
    failures: dict[str, str] = {}
    first = len(configs) - len(waiting)
    with (
        noted_signals(*TERMINATIONS) as signals,
        tqdm(total=len(configs), initial=first, desc="experiment", unit="run") as bar,
    ):
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    process = start(config := waiting.popleft(), num_threads)
                    running[process.sentinel] = process, config
                # A signal does not end the wait, so the wait has to be short.
                for sentinel in wait(list(running), timeout=0.2):
                    process, config = running.pop(cast(int, sentinel))
                    process.join()
                    if is_finished(config.out):
                        bar.update()
                    elif not signals:
                        failures[config.out.name] = reason(process, config.out)
                        bar.write(f"{config.out}: {failures[config.out.name]}", file=sys.stderr)
                if signals:
                    raise InterruptedRunsError(progress(configs), status=128 + signals[0])
        except KeyboardInterrupt:
            raise InterruptedRunsError(progress(configs), status=130) from None
        finally:
            stop([process for process, _ in running.values()])
    return failures


def start(config: TrainConfig, num_threads: int) -> BaseProcess:
    """Start one run."""
    # Each process is forked from a server that has already imported torch, which takes seconds.
    context = multiprocessing.get_context("forkserver")
    # The server imports these too: a run needs them late, and they also take seconds to import.
    late = ["sklearn.cluster", "torchmetrics.functional.classification"]
    context.set_forkserver_preload(["examples.cityscapes.experiments.child", *late])
    process = context.Process(target=run_one, args=(config, num_threads))
    with children_without_ctrl_c():
        process.start()
    return process


def stop(processes: list[BaseProcess]) -> None:
    """Let processes save, and wait for them."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.join()


def reason(process: BaseProcess, run: Path) -> str:
    """Say why a process has ended before its run was finished."""
    if process.exitcode is not None and process.exitcode < 0:
        return f"killed by signal {-process.exitcode}"
    log = run / "log.txt"
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    return next((line for line in reversed(lines) if line.strip()), "no message").split("\r")[-1]


def progress(configs: Sequence[TrainConfig]) -> str:
    """Say how far the runs are."""
    done = sum(is_finished(config.out) for config in configs)
    return f"interrupted with {done} of {len(configs)} runs finished; the same command goes on"


def is_finished(run: Path) -> bool:
    """Whether a run has been trained to its end and measured."""
    return (run / "figures.json").is_file()


def read_result(run: Path, names: Iterable[str] = FIGURES) -> dict[str, Any]:
    """Read the figures.json of a finished run, which has to have the figures of these names."""
    figures = TypedDict("Figures", dict.fromkeys(names, Measured | None))  # type: ignore[misc]
    fields = {**get_type_hints(Result), "figures": figures}
    kind = TypedDict("ResultWithFigures", fields)  # type: ignore[misc]
    return read_object(run / "figures.json", kind, "delete it to measure again")
