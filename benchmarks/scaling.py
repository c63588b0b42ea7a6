"""Scaling: one process against two under torchrun; cost by batch size, image size and K."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.scene_trees import prepared_tree, raw_tree
from benchmarks.timing import Ratio, duration, spread, take_turns
from benchmarks.training_step import TimedRun
from benchmarks.weighting_cost import OURS, PEER, candidates
from examples.cityscapes.config import TrainConfig, new_config, to_json
from examples.cityscapes.training.distributed import Ranks

THREADS = None

REPOSITORY = Path(__file__).parents[1]


def run(settings: Settings) -> Report:
    """Measure all three."""
    with settings.folder("scaling") as folder:
        step_rows = by_size(settings, folder)
        process_rows = by_processes(settings, folder)
    task_rows, exponent = by_tasks(settings)
    about = (
        "Training the `demo` preset on generated scenes (`tiny` on a GPU). Times of a step are "
        "medians of paired rounds with the range of the middle 80%, after three steps. Processes "
        "are started by torchrun with one thread each, in random order, and divide a batch of "
        "eight images; they are timed from their fourth iteration on."
    )
    step_columns = ["images", "size", "per image, over the first", "over the bare network", "step"]
    return Report(
        "Scaling",
        about,
        [
            Table("Batch size and image size, one process", step_columns, step_rows),
            Table(
                "Processes",
                ["processes", "times faster than one", "per iteration"],
                process_rows,
            ),
            Table(
                "Number of tasks, weighting alone, eager, one head per task",
                ["K", "per task, over K = 10", f"over {PEER}", "per call"],
                task_rows,
            ),
        ],
        notes=[
            f"Weighting K tasks costs time in proportion to K to the power {exponent:.2f}, fitted "
            "from K = 10 up; 1 is linear."
        ],
    )


def by_size(settings: Settings, folder: Path) -> list[list[object]]:
    """Return the cost of a training step for batch sizes and image sizes."""
    preset_size = (128, 256) if settings.device.type == "cuda" else (64, 128)
    sizes = settings.choose((1, 2, 4), (1,), (1,))
    batch_sizes = settings.choose((2, 4, 8, 16, 32), (2, 8), (2,))
    shapes = [(b, preset_size) for b in batch_sizes]
    shapes += [(8, (f * preset_size[0], f * preset_size[1])) for f in sizes[1:]]
    runs = {
        shape: TimedRun(make_config(settings, folder, *shape), Ranks(settings.device))
        for shape in shapes
    }
    steps = {f"step {b} {s}": running.step for (b, s), running in runs.items()}
    bare = {f"bare {b} {s}": running.bare_step for (b, s), running in runs.items()}
    timings = take_turns(
        {**steps, **bare},
        rounds=settings.rounds(10, 3),
        seed=settings.seed,
        min_seconds=settings.choose(1.0, 0.0, 0.0),
        warm_up=settings.choose(3, 1, 1),
        synchronize=settings.synchronize,
    )
    rows: list[list[object]] = []
    first = timings.seconds["step {} {}".format(*shapes[0])] / shapes[0][0]
    for batch_size, size in shapes:
        name = f"step {batch_size} {size}"
        per_image = spread(timings.seconds[name] / batch_size / first)
        over_bare = timings.ratio(name, f"bare {batch_size} {size}")
        shown = f"{size[0]}x{size[1]}"
        rows.append([batch_size, shown, per_image, over_bare, duration(timings.median(name))])
    return rows


def by_processes(settings: Settings, folder: Path) -> list[list[object]]:
    """Return how much faster two processes train than one, each with one thread."""
    rounds = settings.repeats or settings.choose(5, 1, 1)
    steps, size = settings.choose(30, 6, 1), settings.choose((64, 128), (64, 128), (32, 64))
    config = make_config(settings, folder, 8, size)
    config.out.mkdir(parents=True, exist_ok=True)
    (config.out / "config.json").write_text(to_json(config), encoding="utf-8")
    seconds: dict[int, list[float]] = {1: [], 2: []}
    rng = np.random.default_rng(settings.seed)
    for _ in range(rounds):
        for n in rng.permutation(list(seconds)):
            seconds[int(n)].append(under_torchrun(config.out, int(n), steps))
    one = np.array(seconds[1])
    return [
        [n, shown(spread(one / np.array(s)), rounds), duration(float(np.median(s)))]
        for n, s in seconds.items()
    ]


def under_torchrun(run: Path, processes: int, steps: int) -> float:
    """Train in processes of one thread each; returns the seconds per iteration."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={processes}", "-m", "benchmarks.one_rank", str(run), str(steps)]
    done = subprocess.run(  # noqa: S603
        command,
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"training under torchrun failed:\n{done.stderr}")
    return float(done.stdout)


def by_tasks(settings: Settings) -> tuple[list[list[object]], float]:
    """Return the cost of weighing K losses, and the exponent of K that it grows with."""
    counts = settings.choose((1, 3, 10, 30, 100, 300, 1000), (1, 10, 100), (1, 10, 20))
    steps = {}
    for k in counts:
        both = candidates(k, settings.device)
        steps |= {f"{name} {k}": both[name] for name in (OURS, PEER)}
    timings = take_turns(
        steps,
        rounds=settings.rounds(30, 7),
        seed=settings.seed,
        min_seconds=settings.choose(5e-3, 2e-3, 0.0),
        synchronize=settings.synchronize,
    )
    at_ten = timings.seconds[f"{OURS} 10"] / 10
    rows = [
        [
            k,
            spread(timings.seconds[f"{OURS} {k}"] / k / at_ten),
            timings.ratio(f"{OURS} {k}", f"{PEER} {k}"),
            duration(timings.median(f"{OURS} {k}")),
        ]
        for k in counts
    ]
    large = [k for k in counts if k >= 10]
    medians = [timings.median(f"{OURS} {k}") for k in large]
    return rows, float(np.polyfit(np.log(large), np.log(medians), 1)[0])


def make_config(
    settings: Settings, folder: Path, batch_size: int, size: tuple[int, int]
) -> TrainConfig:
    """Return a training on generated scenes."""
    raw = raw_tree(folder, train=settings.choose(64, 32, 16), size=size, seed=settings.seed)
    small = {"stages": 1, "aspp_channels": 4, "decoder_channels": 4}
    return new_config(
        {
            "preset": "tiny" if settings.device.type == "cuda" else "demo",
            "data": prepared_tree(folder, raw, size),
            "out": folder / f"run_{batch_size}_{size[0]}",
            "size": size,
            "backbone_weights": "none",
            "batch_size": batch_size,
            "learning_rate": 1e-12,
            "iterations": 10**9,
            "eval_every": 0,
            "tensorboard": False,
            "device": settings.device.type,
            **(small if settings.effort == "smoke" else {}),
        }
    )


def shown(ratio: Ratio, rounds: int) -> str:
    """Return a ratio, without a spread if there was but one round."""
    return str(ratio) if rounds > 1 else f"{ratio.median:.2f}"
