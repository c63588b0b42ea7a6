"""All trainings, one process a core; a file keeps what has ended, to go on from."""

import json
import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch
from tqdm import tqdm

from benchmarks.run_settings import Settings
from benchmarks.weighting.one_training import Outcome, Problem, train
from benchmarks.weighting.pinn import Poisson
from benchmarks.weighting.scenes import Scenes
from benchmarks.weighting.table_problems import TABLES
from benchmarks.weighting.ways import (
    CLOSED_SYMMETRIC,
    EQUAL,
    NLL,
    SYMMETRIC,
    Way,
    drawn_weights,
    ways,
)

OF_SCENES = ((1.0, 0.1, 0.3), (1.0, 0.02, 0.1), (1.0, 0.02, 0.5), (1.0, 0.5, 0.5))
"""Fixed weights of classes, vectors and disparity; a search of their own would cost days."""

LONG_WAYS = (EQUAL, NLL, SYMMETRIC, CLOSED_SYMMETRIC)
"""What is trained with the preset `demo`, too, which takes three times as long."""


class Job(NamedTuple):
    """One training."""

    problem: str
    way: str
    seed: int


class Compared(NamedTuple):
    """A problem, and the ways that learn it."""

    problem: Problem
    ways: dict[str, Way]


@dataclass(frozen=True)
class Study:
    """Everything that can be trained; made again in each process."""

    settings: Settings
    folder: Path

    def small(self) -> list[Compared]:
        """Return tables and the physics-informed network."""
        choose = self.settings.choose
        count = choose(7, 3, 1)
        found = []
        for table in choose(TABLES, TABLES, TABLES[1:2]):
            chosen = replace(table, epochs=choose(table.epochs, table.epochs // 10, 1))
            found.append(self._compared(chosen, drawn_weights(len(table.num_outputs), count)))
        found.append(self._compared(Poisson(choose(3000, 300, 10)), drawn_weights(3, count)))
        return found

    def scenes(self) -> Compared:
        """Return the three tasks on rendered scenes, with the preset `quick`."""
        return self._compared(self._scenes("quick", (600, 20, 2)), OF_SCENES)

    def long(self) -> Compared:
        """Return the same with the preset `demo`."""
        return self._compared(self._scenes("demo", (1400, 20, 2)), OF_SCENES)

    def _compared(self, problem: Problem, weights: Sequence[Sequence[float]]) -> Compared:
        smoke = self.settings.effort == "smoke"
        found = ways(weights[:1] if smoke else weights)
        kept = [way for way in found if not smoke or way.one_of or way.name in LONG_WAYS]
        return Compared(problem, {way.name: way for way in kept})

    def _scenes(self, preset: str, iterations: tuple[int, int, int]) -> Scenes:
        choose = self.settings.choose
        tiny = {"size": (32, 64), "stages": 1, "aspp_channels": 4, "decoder_channels": 4}
        return Scenes(
            self.folder,
            preset,
            *choose((600, 60), (48, 8), (16, 2)),
            iterations=choose(*iterations),
            **choose({}, {}, tiny),
        )

    def named(self, name: str) -> Compared:
        """Return one of them; scenes must have been rendered, as processes would do it at once."""
        for compared in self.small():
            if compared.problem.name == name:
                return compared
        scenes = self.scenes()
        return scenes if scenes.problem.name == name else self.long()


def one_process_a_core() -> ProcessPoolExecutor:
    """Return the processes that train."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return ProcessPoolExecutor(
        cores,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


def run_all(study: Study, jobs: Sequence[Job], file: Path, pool: Executor) -> dict[Job, Outcome]:
    """Train what the file does not have yet, and return all outcomes."""
    found = finished(file)
    running = {pool.submit(run_one, study, job): job for job in jobs if job not in found}
    with file.open("a", encoding="utf-8") as lines:
        for future in tqdm(as_completed(running), "training", len(running), disable=None):
            job = running[future]
            found[job] = future.result()
            lines.write(json.dumps({**job._asdict(), **asdict(found[job])}) + "\n")
            lines.flush()
    return {job: found[job] for job in jobs}


def run_one(study: Study, job: Job) -> Outcome:
    """Train once; called in a process of its own."""
    problem, by_way = _opened(study, job.problem)
    return train(problem, by_way[job.way].make(problem.likelihoods), job.seed)


def finished(file: Path) -> dict[Job, Outcome]:
    """Return the outcomes in a file; a line that was being written is left out."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        job = Job(*(entry.pop(name) for name in Job._fields))
        found[job] = Outcome(**entry)
    return found


@lru_cache
def _opened(study: Study, problem: str) -> Compared:
    return study.named(problem)
