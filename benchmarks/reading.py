"""Training images per second of one core: official files, prepared ones, torchvision's dataset."""

import itertools
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import Cityscapes
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as image_ops

from benchmarks.result_file import Goal, Report, Table
from benchmarks.run_settings import Settings
from benchmarks.scene_trees import prepared_tree, raw_tree
from benchmarks.timing import Ratio, Timings, spread, take_turns
from examples.cityscapes.data.augment import Augmentation
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import TrainingOrder
from examples.cityscapes.settings import TASKS

THREADS = 1  # what one worker has

BATCH_SIZE = 8
TWO_TASKS = ("semantic", "instance")

RAW, PREPARED = "official files, three tasks", "prepared, three tasks"
RAW_TWO, TORCHVISION = "official files, image and two label maps", "the same by torchvision"

Read = Callable[[], object]


def run(settings: Settings) -> Report:
    """Measure single processes by their processor time, then loaders by the clock."""
    native = settings.choose((1024, 2048), (256, 512), (64, 128))
    size = settings.choose((128, 256), (128, 256), (32, 64))
    with settings.folder("reading") as folder:
        count = settings.choose(24, 16, 8)
        raw = settings.data or raw_tree(folder, train=count, size=native, seed=settings.seed)
        prepared = prepared_tree(folder, raw, size)
        rounds = settings.rounds(15, 4)
        timings = take_turns(
            {
                RAW: one_batch(raw, size, TASKS, settings.seed),
                PREPARED: one_batch(prepared, size, TASKS, settings.seed),
                RAW_TWO: one_batch_of_maps(without_depth(raw, folder), size, settings.seed),
                TORCHVISION: one_batch_of_torchvision(raw, size, settings.seed),
            },
            rounds=rounds,
            seed=settings.seed,
            min_seconds=settings.choose(0.5, 0.1, 0.0),
            warm_up=1,
            # Another program on the machine is then no loss.
            clock=time.process_time,
        )
        loaded = loader_rates(prepared, size, settings)
    rates = Timings({name: seconds / BATCH_SIZE for name, seconds in timings.seconds.items()})
    rows = [
        [
            name,
            spread(1 / rates.seconds[name]),
            rates.ratio(RAW, name),
            rates.ratio(TORCHVISION, name),
        ]
        for name in rates.seconds
    ]
    columns = ["what is read", "images per second of a core", "times official", "times torchvision"]
    workers = [[n, rate, ratio] for n, rate, ratio in loaded]
    source = "CityScapes" if settings.data else f"{count} generated scenes"
    about = (
        f"{source} of {native[0]}x{native[1]}, read at {size[0]}x{size[1]} in batches of "
        f"{BATCH_SIZE} with half of the images mirrored, from the page cache. torchvision reads "
        "the image, the classes and the instance ids and resizes them; ours does so, too, and "
        "finds the centres of the instances, depth left out. Processor time of "
        f"one core in one process; medians of {rounds} paired rounds with the range of the middle "
        "80%. The second table is by the clock, with worker processes whose queues were emptied "
        "before. One batch was read before everything."
    )
    return Report(
        "Reading training images",
        about,
        [
            Table("One core", columns, rows),
            Table(
                "Loader on prepared files",
                ["worker processes", "images per second", "times none"],
                workers,
            ),
        ],
        [
            Goal("prepared over official", 20, rates.ratio(RAW, PREPARED).median, at_least=True),
            Goal(
                "prepared images per second of a core",
                1500,
                1 / rates.median(PREPARED),
                at_least=True,
            ),
            Goal(
                "time, official files over torchvision", 1, rates.ratio(RAW_TWO, TORCHVISION).median
            ),
        ],
    )


def one_batch(root: Path, size: tuple[int, int], tasks: tuple[str, ...], seed: int) -> Read:
    """Return what reads the next batch of an endless training, in this process."""
    loader = endless(root, size, tasks, seed, num_workers=0)
    return lambda: next(loader)


def one_batch_of_maps(root: Path, size: tuple[int, int], seed: int) -> Read:
    """Return what reads the next images with what torchvision has, too, and stacks them."""
    dataset = CityscapesDataset(root, "train", size, TWO_TASKS, Augmentation())
    order = TrainingOrder(len(dataset), BATCH_SIZE, start=0, stop=10**9, seed=seed, augment=True)
    draws = iter(order)

    def read() -> list[Tensor]:
        samples = [dataset[draw] for draw in next(draws)]
        names = ("image", "semantic", "instance_ids")
        return [torch.stack([getattr(s, name) for s in samples]) for name in names]

    return read


def endless(
    root: Path, size: tuple[int, int], tasks: tuple[str, ...], seed: int, *, num_workers: int
) -> Iterator[object]:
    """Return the batches of a training."""
    dataset = CityscapesDataset(root, "train", size, tasks, Augmentation())
    order = TrainingOrder(len(dataset), BATCH_SIZE, start=0, stop=10**9, seed=seed, augment=True)
    return batches(dataset, order, tasks, num_workers=num_workers)


def one_batch_of_torchvision(root: Path, size: tuple[int, int], seed: int) -> Read:
    """Return what reads the next batch of torchvision's dataset, mirrored half of the time."""
    generator = torch.Generator().manual_seed(seed)
    antialiased = v2.Resize(size, antialias=True)
    nearest = v2.Resize(size, interpolation=v2.InterpolationMode.NEAREST_EXACT)

    def transforms(image: object, labels: tuple[object, object]) -> tuple[Tensor, list[Tensor]]:
        mirrored = bool(torch.rand((), generator=generator) < 0.5)

        def finish(tensor: Tensor) -> Tensor:
            return tensor.flip(-1) if mirrored else tensor

        # Float, as torch has no nearest neighbour of 32 bit integers.
        resized = [nearest(image_ops.pil_to_tensor(label).float()).long() for label in labels]
        return finish(antialiased(image_ops.pil_to_tensor(image))), [finish(r) for r in resized]

    dataset = Cityscapes(
        str(root),
        split="train",
        mode="fine",
        target_type=["semantic", "instance"],
        transforms=transforms,
    )
    loader = DataLoader(
        dataset, BATCH_SIZE, shuffle=True, drop_last=True, num_workers=0, generator=generator
    )
    endlessly = itertools.chain.from_iterable(itertools.repeat(loader))
    return lambda: next(endlessly)


def without_depth(raw: Path, folder: Path) -> Path:
    """Return a tree of links without disparities and cameras, which torchvision does not read."""
    tree = folder / "without_depth"
    tree.mkdir(exist_ok=True)
    for name in ("leftImg8bit", "gtFine"):
        if not (tree / name).exists():
            (tree / name).symlink_to((raw / name).resolve(), target_is_directory=True)
    return tree


def loader_rates(
    prepared: Path, size: tuple[int, int], settings: Settings
) -> list[tuple[int, Ratio, Ratio]]:
    """Return images per second by the clock for each number of workers, and over none."""
    most = min(4, os.cpu_count() or 1)
    numbers = settings.choose(range(most + 1), range(min(3, most + 1)), range(1))
    loaders = {
        str(n): endless(prepared, size, TASKS, settings.seed, num_workers=n) for n in numbers
    }
    num_batches = settings.choose(60, 30, 1)

    def read(name: str, count: int) -> Callable[[], None]:
        def some_batches() -> None:
            for _ in range(count):
                next(loaders[name])

        return some_batches

    timings = take_turns(
        {name: read(name, num_batches) for name in loaders},
        # Two batches wait for each worker: they were read in the turns of the others.
        before={name: read(name, 2 * int(name)) for name in loaders},
        rounds=settings.rounds(15, 3),
        seed=settings.seed,
        min_seconds=0.0,
        warm_up=1,
    )
    images = num_batches * BATCH_SIZE
    return [
        (int(name), spread(images / seconds), spread(timings.seconds["0"] / seconds))
        for name, seconds in timings.seconds.items()
    ]
