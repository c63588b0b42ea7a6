"""Scenes per second of the generator on one core, against encoding and reading their files."""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.scene_trees import raw_tree
from benchmarks.timing import take_turns
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.settings import TASKS
from examples.rendered_scenes import sample_scene
from examples.rendered_scenes.write import write_scene

THREADS = 1

BOTH, RENDER, WRITE, READ = "render and write", "render", "write", "read"


def run(settings: Settings) -> Report:
    """Measure every size."""
    sizes = settings.choose(
        ((64, 128), (128, 256), (256, 512), (512, 1024), (1024, 2048)),
        ((64, 128), (256, 512)),
        ((32, 64),),
    )
    rounds = settings.rounds(5, 4)
    count = settings.choose(4, 8, 2)
    rows = []
    with settings.folder("scenes") as folder:
        for size in sizes:
            timings = take_turns(
                candidates(folder, size, count, settings.seed),
                rounds=rounds,
                seed=settings.seed,
                min_seconds=0.0,
                warm_up=1,
                # The processor's: another program on the machine is then no loss.
                clock=time.process_time,
            )
            rows += [
                [
                    f"{size[0]}x{size[1]}",
                    name,
                    f"{count / timings.median(name):.3g}",
                    timings.ratio(name, WRITE),
                    timings.ratio(name, READ),
                ]
                for name in timings.seconds
            ]
    about = (
        f"The same {count} scenes in every call. Writing is Pillow's encoding of four PNG files "
        "and the camera file: a floor for whatever makes scenes. Reading is the training data "
        "set's, with the targets of all tasks, at the size of the files. Processor time of one "
        f"core; medians of {rounds} paired rounds with the range of the middle 80%; one call "
        "before."
    )
    columns = ["size", "what", "scenes per second", "time over writing", "time over reading"]
    return Report("The generator of scenes", about, [Table("Scenes per second", columns, rows)])


def candidates(
    folder: Path, size: tuple[int, int], count: int, seed: int
) -> dict[str, Callable[[], object]]:
    """Return what is timed, each for `count` scenes."""
    rendered = [sample_scene("train", k, size=size, seed=seed) for k in range(count)]
    tree = raw_tree(folder, train=count, val=1, size=size, seed=seed)
    dataset = CityscapesDataset(tree, "train", size, TASKS)

    def render() -> list[object]:
        return [sample_scene("train", k, size=size, seed=seed) for k in range(count)]

    def write(scenes: list) -> None:
        for k, scene in enumerate(scenes):
            write_scene(folder / "written", "train", k, scene)

    return {
        BOTH: lambda: write(render()),
        RENDER: render,
        WRITE: lambda: write(rendered),
        READ: lambda: [dataset.read(k) for k in range(count)],
    }
