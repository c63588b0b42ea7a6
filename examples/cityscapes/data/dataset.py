"""From samples to batches: the dataset of a split, and its batches."""

import os
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from examples.cityscapes.data import targets as target_ops
from examples.cityscapes.data.augment import Augmentation, Box, crop
from examples.cityscapes.data.files import FINE
from examples.cityscapes.data.order import Draw
from examples.cityscapes.data.sample import Sample
from examples.cityscapes.data.splits import open_split
from examples.cityscapes.data.translate import translate
from examples.cityscapes.labels import IGNORE_INDEX
from examples.cityscapes.protocols import THREE_TASK, Protocol
from examples.common.errors import InputError
from examples.common.interrupt import children_without_ctrl_c


class Batch(NamedTuple):
    """Images and the labels of some tasks, as they are handed over between processes.

    Targets and masks, which have twice as many bytes, are derived where they are used.
    """

    image: Tensor
    semantic: Tensor | None
    """Classes of the protocol, uint8, (B, H, W)."""
    instances: Tensor | None
    """The index in `centres` of each pixel's instance, int16, (B, H, W); 0 without an instance."""
    centres: Tensor | None
    """Column and row of every instance's centre, float32, (B, K + 1, 2)."""
    disparity: Tensor | None
    """Disparity or inverse depth, float32, (B, H, W); nan where unknown."""
    disparity_at_1m: Tensor
    """Disparity in pixels of a point at one metre, (B,); nan for an image without a camera file."""

    def to(self, device: torch.device) -> "Batch":
        """Copy to a device, except `disparity_at_1m`, which no training step needs."""
        moved: list[Any] = [
            None if t is None else t.to(device, non_blocking=True) for t in self[:-1]
        ]
        return Batch._make([*moved, self.disparity_at_1m])

    def targets(self) -> dict[str, Tensor]:
        """Derive the targets of the tasks whose labels are there."""
        targets = {}
        if self.semantic is not None:
            targets["semantic"] = self.semantic.long()
        if self.instances is not None and self.centres is not None:
            targets["instance"] = target_ops.offsets_of_numbers(self.instances, self.centres)
        if self.disparity is not None:
            targets["depth"] = self.disparity.unsqueeze(1)
        return targets

    def masks(self) -> dict[str, Tensor]:
        """Derive the masks of the same tasks, (B, H, W): true where a target is valid."""
        masks = {}
        if self.semantic is not None:
            masks["semantic"] = self.semantic != IGNORE_INDEX
        if self.instances is not None:
            masks["instance"] = self.instances > 0
        if self.disparity is not None:
            masks["depth"] = ~torch.isnan(self.disparity)
        return masks


def collate(samples: list[Sample], tasks: Iterable[str]) -> Batch:
    """Stack the images, and the labels from which the targets of `tasks` are derived."""
    instances = centres = None
    if "instance" in tasks:
        numbers = [target_ops.number_instances(s.instance_ids, s.centroids) for s in samples]
        instances = torch.stack(numbers)
        centres = target_ops.stack_centroids([s.centroids for s in samples])
    return Batch(
        image=torch.stack([s.image for s in samples]),
        semantic=torch.stack([s.semantic for s in samples]) if "semantic" in tasks else None,
        instances=instances,
        centres=centres,
        disparity=torch.stack([s.disparity for s in samples]) if "depth" in tasks else None,
        disparity_at_1m=torch.tensor([s.disparity_at_1m for s in samples]),
    )


class CityscapesDataset(Dataset[Sample | InputError]):
    """The frames of one split at one size.

    Args:
        root: Folder in the official layout, one that `prepare` has written, or one of arrays.
        split: `train` or `val`.
        size: Height and width to resize to; the aspect ratio has to be that of the images.
        tasks: Decide which labels a frame must have.
        augmentation: Is applied to the draws that have a seed.
        labels: `gtFine` or `gtCoarse`.
        protocol: Decides the classes, and which depths count.

    Raises:
        InputError: If a file or labels are absent, or an image has another aspect ratio.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int],
        tasks: Iterable[str],
        augmentation: Augmentation = Augmentation(),  # noqa: B008 (it is a tuple)
        labels: str = FINE,
        protocol: Protocol = THREE_TASK,
    ) -> None:
        self.size, self.augmentation, self.protocol = size, augmentation, protocol
        self._split = open_split(root, split, size, tasks, labels, protocol)
        self.frames = self._split.frames
        self._kept: list[Sample] | None = None

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, draw: Draw) -> Sample | InputError:
        try:
            if draw.seed is None:
                return self.read(draw.index)
            box, mirrored = self.augmentation.draw(draw.seed, self.size)
            sample = self.read(draw.index, box)
        except InputError as error:
            # Return the error: a raised one would get the traceback of the worker process added.
            return error
        return self.augmentation.finish(sample, self.size, mirrored)

    def read(self, index: int, box: Box | None = None) -> Sample:
        """Return a frame, or a part of it, without augmentation."""
        if self._kept is not None:
            return self._kept[index] if box is None else crop(self._kept[index], box)
        return translate(self._split.read(index, box), self._split.protocol, self.protocol)

    @property
    def is_kept(self) -> bool:
        """Whether the decoded images are in memory."""
        return self._kept is not None

    def keep(self, limit_mb: int) -> None:
        """Decode every frame now and keep it, if all fit into `limit_mb` megabytes."""
        bytes_per_pixel = 3 + 1 + 4 + 4
        if len(self) * self.size[0] * self.size[1] * bytes_per_pixel <= limit_mb * 2**20:
            # The bar shows on terminals only: elsewhere, an error should be the only line printed.
            with tqdm(range(len(self)), "reading", unit="image", leave=False, disable=None) as bar:
                self._kept = [self.read(index) for index in bar]


def _collate_or_hand_on(
    tasks: tuple[str, ...], samples: list[Sample | InputError]
) -> Batch | InputError:
    """Collate, or return the first error among the samples."""
    read = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        read.append(sample)
    return collate(read, tasks)


def batches(
    dataset: CityscapesDataset,
    order: Iterable[list[Draw]],
    tasks: tuple[str, ...],
    *,
    num_workers: int = 0,
    device: torch.device = torch.device("cpu"),  # noqa: B008 (it is immutable)
) -> Generator[Batch]:
    """Yield the batches of `order` on a device; an unreadable file raises its InputError here."""
    loader = DataLoader(
        dataset,
        batch_sampler=order,
        num_workers=0 if dataset.is_kept else min(num_workers, os.cpu_count() or 1),
        collate_fn=partial(_collate_or_hand_on, tasks),
        pin_memory=device.type == "cuda",
        # Starting workers would advance the global generator, and a resumed run starts them again.
        generator=torch.Generator(),
    )
    try:
        for batch in _from_workers(loader) if loader.num_workers else loader:
            if isinstance(batch, InputError):
                raise batch
            yield batch.to(device)
    except (RuntimeError, ConnectionError, EOFError) as error:  # the last two: during a hand-over
        if isinstance(error, RuntimeError) and "DataLoader worker (pid" not in str(error):
            raise
    else:
        return
    # Outside of `except`, or this error would keep the caught one alive, with its processes.
    raise InputError(
        "--num-workers: one of the processes that read images was killed, most likely for want of "
        "memory; use fewer, and `train --resume` goes on where the run was"
    )


def _from_workers(loader: DataLoader[Any]) -> Iterator[Batch | InputError]:
    """Iterate with worker processes; if one dies, this raises when its batch is waited for.

    PyTorch's handler of SIGCHLD could raise at any time, such as in the middle of a step.
    """
    with children_without_ctrl_c():
        batches_of_workers = iter(loader)
    if threading.current_thread() is threading.main_thread():  # no other may handle signals
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    yield from batches_of_workers
