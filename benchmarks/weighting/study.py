"""Runs all trainings, one process per core. A file keeps the finished ones, for a restart."""

import json
import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
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
from benchmarks.weighting.ways import LONG_WAYS, Way, drawn_weights, ways

OF_SCENES = ((1.0, 0.1, 0.3), (1.0, 0.02, 0.1), (1.0, 0.02, 0.5), (1.0, 0.5, 0.5))
"""Fixed weights of classes, vectors and disparity; a random search would take days."""


class Job(NamedTuple):
    """One training: its problem, its way to weigh and its seed."""

    problem: str
    way: str
    seed: int


class Compared(NamedTuple):
    """A problem, and the ways to weigh that are compared on it, by name."""

    problem: Problem
    ways: dict[str, Way]


Problems = Callable[[Settings, Path], dict[str, Compared]]
"""A function that builds the problems of a comparison by name, and keeps their data in a folder."""


@lru_cache
def small_problems(settings: Settings, folder: Path) -> dict[str, Compared]:
    """Return the tables, and the physics-informed network."""
    choose, found = settings.choose, {}
    for table in choose(TABLES, TABLES, TABLES[1:2]):
        epochs = choose(table.epochs, table.epochs // 10, 1)
        weights = drawn_weights(len(table.num_outputs), choose(7, 3, 1))
        found[table.name] = compared(settings, replace(table, epochs=epochs), weights)
    poisson, weights = Poisson(choose(3000, 300, 10)), drawn_weights(3, choose(7, 3, 1))
    return {**found, poisson.name: compared(settings, poisson, weights)}


@lru_cache
def scene_problems(settings: Settings, folder: Path) -> dict[str, Compared]:
    """Return the presets `quick` and `demo`.

    The first call renders the scenes, so call it once before several processes call it together.
    """
    choose, found = settings.choose, {}
    tiny = {"size": (32, 64), "stages": 1, "aspp_channels": 4, "decoder_channels": 4}
    for preset, full in (("quick", 600), ("demo", 1400)):
        options = {"iterations": choose(full, 20, 2), **choose({}, {}, tiny)}
        scenes = Scenes(folder, preset, *choose((600, 60), (48, 8), (16, 2)), **options)
        weights = choose(OF_SCENES, OF_SCENES, OF_SCENES[:1])
        found[scenes.name] = compared(settings, scenes, weights)
    return found


def compared(
    settings: Settings, problem: Problem, fixed_weights: Sequence[Sequence[float]]
) -> Compared:
    """Return a problem with the ways to weigh that are compared on it; a smoke test has few."""
    chosen = ways(fixed_weights)
    if settings.effort == "smoke":
        chosen = [way for way in chosen if way.one_of or way.name in LONG_WAYS]
    return Compared(problem, {way.name: way for way in chosen})


def jobs_of(compared: Iterable[Compared], seeds: Sequence[int]) -> list[Job]:
    """Return the trainings, seed by seed, so that an interrupted comparison has whole seeds."""
    compared = list(compared)
    return [Job(c.problem.name, way, seed) for seed in seeds for c in compared for way in c.ways]


def one_process_a_core() -> ProcessPoolExecutor:
    """Return the processes that train."""
    # Forked processes could hang in PyTorch's threads.
    return ProcessPoolExecutor(
        mp_context=multiprocessing.get_context("spawn"),
        initializer=torch.set_num_threads,
        initargs=(1,),
    )


def run_all(
    problems: Problems, settings: Settings, folder: Path, jobs: Sequence[Job], pool: Executor
) -> dict[Job, Outcome]:
    """Train what runs.jsonl does not have yet, and return all outcomes."""
    file = folder / "runs.jsonl"
    found = finished(file)
    waiting = [job for job in jobs if job not in found]
    running = {pool.submit(run_one, problems, settings, folder, job): job for job in waiting}
    with file.open("a", encoding="utf-8") as lines:
        for future in tqdm(as_completed(running), "training", len(running), disable=None):
            job = running[future]
            found[job] = future.result()
            lines.write(json.dumps({**job._asdict(), **asdict(found[job])}) + "\n")
            lines.flush()
    return {job: found[job] for job in jobs}


def run_one(problems: Problems, settings: Settings, folder: Path, job: Job) -> Outcome:
    """Train once; called in a process of its own."""
    problem, by_name = problems(settings, folder)[job.problem]
    return train(problem, by_name[job.way].make(problem.likelihoods), job.seed)


def finished(file: Path) -> dict[Job, Outcome]:
    """Return the outcomes in a file. Skip a line that was only partly written."""
    found = {}
    for line in file.read_text(encoding="utf-8").splitlines() if file.is_file() else []:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            continue
        job = Job(*(entry.pop(name) for name in Job._fields))
        found[job] = Outcome(**entry)
    return found
