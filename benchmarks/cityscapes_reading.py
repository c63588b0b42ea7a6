"""How many training images one core reads, from the official files and from a prepared copy.

Run it from the root of the repository:

    OMP_NUM_THREADS=1 python -m benchmarks.cityscapes_reading RAW PREPARED --size 128x256
"""

import argparse
import time
from pathlib import Path

import torch

from examples.cityscapes.augment import Augmentation
from examples.cityscapes.config import TASKS
from examples.cityscapes.data import CityscapesDataset, TrainingOrder, batches

BATCH_SIZE = 8


def images_per_second(
    root: Path, size: tuple[int, int], augmentation: Augmentation, num_batches: int
) -> float:
    """Return how many images become batches of all three tasks per second of one core.

    Processor time, not wall time: another program on the machine is then no loss. The first batch
    opens the files and is left out.
    """
    dataset = CityscapesDataset(root, "train", size, TASKS, augmentation)
    order = TrainingOrder(
        len(dataset), BATCH_SIZE, start=0, stop=num_batches + 1, seed=0, augment=True
    )
    loader = batches(dataset, order, TASKS)
    next(loader)
    start = time.process_time()
    count = sum(len(batch.image) for batch in loader)
    return count / (time.process_time() - start)


def main() -> None:
    """Print a line for each kind of folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path)
    parser.add_argument("prepared", type=Path)
    parser.add_argument("--size", default="128x256")
    parser.add_argument("--crop", help="with scales from 0.7 to 2.0; none: the whole image")
    parser.add_argument("--batches", type=int, default=200, help="a twentieth of it for RAW")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    size, crop = (text and tuple(map(int, text.split("x"))) for text in (given.size, given.crop))
    augmentation = Augmentation(True, (0.7, 2.0) if crop else (1.0, 1.0), crop)
    torch.set_num_threads(1)
    for root, count in ((given.raw, max(1, given.batches // 20)), (given.prepared, given.batches)):
        rates = [images_per_second(root, size, augmentation, count) for _ in range(given.repeats)]
        median = sorted(rates)[len(rates) // 2]
        print(f"{root}: {median:.0f} images/s (from {min(rates):.0f} to {max(rates):.0f})")


if __name__ == "__main__":
    main()
