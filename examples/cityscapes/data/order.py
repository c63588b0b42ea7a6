"""The order in which images are seen."""

from collections.abc import Iterator, Sized
from typing import NamedTuple

import numpy as np


class Draw(NamedTuple):
    """Which image comes next, and the seed of its augmentation.

    Drawn by the sampler, not by the dataset: a worker then has no random state of its own, and a
    resumed run sees exactly what an uninterrupted one would have seen.
    """

    index: int  # type: ignore[assignment]  # every tuple has a method of this name
    seed: int | None
    """Seed of the augmentation; None: no augmentation."""


class TrainingOrder:
    """Batches of draws for the iterations `start` to `stop`: a new permutation every epoch.

    Every draw follows from the seed and the iteration, so resuming needs no other state.
    """

    def __init__(
        self, num_images: int, batch_size: int, *, start: int, stop: int, seed: int, augment: bool
    ) -> None:
        self.num_images, self.batch_size = num_images, batch_size
        self.start, self.stop, self.seed, self.augment = start, stop, seed, augment

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        # The last images of an epoch that fill no batch are dropped: batch norm must not meet a
        # batch of one.
        batches_per_epoch = self.num_images // self.batch_size
        for iteration in range(self.start, self.stop):
            epoch, position = divmod(iteration, batches_per_epoch)
            if position == 0 or iteration == self.start:
                rng = np.random.default_rng([self.seed, epoch])
                order = rng.permutation(self.num_images)
                seeds = rng.integers(2**31, size=self.num_images)
            chosen = slice(position * self.batch_size, (position + 1) * self.batch_size)
            yield [
                Draw(int(index), int(seed) if self.augment else None)
                for index, seed in zip(order[chosen], seeds[chosen], strict=True)
            ]


def in_order(dataset: Sized, batch_size: int = 8) -> list[list[Draw]]:
    """Every image once, in order and without augmentation."""
    draws = [Draw(index, None) for index in range(len(dataset))]
    return [draws[i : i + batch_size] for i in range(0, len(draws), batch_size)]
