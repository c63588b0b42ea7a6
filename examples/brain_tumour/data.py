"""From volumes to batches: which cases, in which order, as which tensors."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from examples.brain_tumour.brain_config import MODALITIES, BrainConfig
from examples.brain_tumour.generated import generate
from examples.brain_tumour.volumes import LABELS, Volume
from examples.common.errors import InputError

Split = list[Callable[[], Volume]]
"""Functions that each read one case: a hundred cases do not fit into memory."""

_CLASS_OF_LABEL = torch.zeros(max(LABELS) + 1, dtype=torch.long)
_CLASS_OF_LABEL[list(LABELS)] = torch.arange(len(LABELS))


class VolumeBatch(NamedTuple):
    """What the loss needs, by task."""

    inputs: Tensor
    """(B, 3, D, H, W): the modalities that are there, in the order of `MODALITIES`."""
    targets: dict[str, Tensor | None]
    """`synthesis` (B, 1, D, H, W); `segmentation` (B, D, H, W), classes 0 to 3, or None."""
    masks: dict[str, Tensor]
    """(B, D, H, W) bool: the brain; for segmentation, that of the labelled volumes."""

    def to(self, device: torch.device) -> "VolumeBatch":
        """Move everything to the device."""
        return VolumeBatch(
            self.inputs.to(device),
            {task: None if t is None else t.to(device) for task, t in self.targets.items()},
            {task: mask.to(device) for task, mask in self.masks.items()},
        )


def open_split(config: BrainConfig, split: str) -> Split:
    """Return the cases of `train` or `val`; every fifth of BraTS, from the first, is `val`."""
    if config.data is None:
        train = config.cases
        numbers = range(train) if split == "train" else range(train, train + max(1, train // 4))
        return [partial(generate, number, config.size) for number in numbers]

    from examples.brain_tumour.brats import (
        find_cases,
        read_case,
    )  # generated volumes need no nibabel

    folders = find_cases(config.data)
    if len(folders) < 2:
        raise InputError(f"{config.data}: should hold at least 2 cases, as one is for validation")
    chosen = [f for index, f in enumerate(folders) if (index % 5 == 0) == (split == "val")]
    return [partial(read_case, folder, config.size) for folder in chosen]


def training_order(config: BrainConfig, num_cases: int) -> Iterator[list[int]]:
    """Yield the cases of each step; all of them are seen before one is seen again."""
    generator = torch.Generator().manual_seed(config.seed)
    waiting: list[int] = []
    for _ in range(config.iterations):
        while len(waiting) < config.batch_size:
            waiting += torch.randperm(num_cases, generator=generator).tolist()
        yield waiting[: config.batch_size]
        waiting = waiting[config.batch_size :]


def batches(split: Split, order: Iterable[list[int]], missing: str) -> Iterator[VolumeBatch]:
    """Yield the batches, each read while the one before it is being used."""

    def read(indices: list[int]) -> VolumeBatch:
        return to_batch([split[index]() for index in indices], missing)

    with ThreadPoolExecutor(max_workers=1) as pool:
        ahead = None
        for indices in order:
            ahead, ready = pool.submit(read, indices), ahead
            if ready is not None:
                yield ready.result()
        if ahead is not None:
            yield ahead.result()


def to_batch(volumes: list[Volume], missing: str) -> VolumeBatch:
    """Split each volume into input and targets.

    A volume without labels is masked out of the segmentation; if none has labels, there is no
    target at all.
    """
    images = torch.from_numpy(np.stack([volume.images for volume in volumes]))
    brain = torch.from_numpy(np.stack([volume.brain for volume in volumes]))
    position = MODALITIES.index(missing)
    inputs = images[:, [i for i in range(len(MODALITIES)) if i != position]]
    targets: dict[str, Tensor | None] = {"synthesis": images[:, [position]], "segmentation": None}
    masks = {"synthesis": brain}

    labelled = torch.tensor([volume.labels is not None for volume in volumes])
    if labelled.any():
        labels = [
            np.zeros(v.brain.shape, np.int64) if v.labels is None else v.labels for v in volumes
        ]
        targets["segmentation"] = _CLASS_OF_LABEL[torch.from_numpy(np.stack(labels))]
        masks["segmentation"] = brain & labelled[:, None, None, None]
    return VolumeBatch(inputs, targets, masks)
