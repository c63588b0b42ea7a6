"""The frames of one split: official files, a prepared copy, or the arrays of other papers."""

from collections.abc import Iterable
from pathlib import Path

from examples.cityscapes.data.arrays import ArraySplit, check_fine, is_array_tree
from examples.cityscapes.data.augment import Box, crop
from examples.cityscapes.data.files import FINE, check_aspect, find_frames
from examples.cityscapes.data.prepared import PreparedSplit, is_prepared
from examples.cityscapes.data.read_image import image_size
from examples.cityscapes.data.sample import Sample, read_sample
from examples.cityscapes.protocols import THREE_TASK, Protocol
from examples.common.errors import InputError


class RawSplit:
    """The frames of one split, decoded and resized whenever they are read.

    Args:
        root: Folder in the official layout.
        split: `train` or `val`.
        size: Height and width to resize to, of the same shape as the images.
        tasks: Decides which labels a frame must have. Without `depth`, the files that only it
            needs are ignored.
        labels: `gtFine` or `gtCoarse`.

    Raises:
        InputError: If a file is absent, or an image has another shape than `size`.
    """

    protocol = THREE_TASK
    """The protocol whose labels the samples have."""

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int],
        tasks: Iterable[str],
        labels: str = FINE,
    ) -> None:
        self.size = size
        frames = find_frames(root, split, labels=labels, need_instances="instance" in tasks)
        if "depth" not in tasks:
            frames = [frame._replace(disparity=None, camera=None) for frame in frames]
        self.frames = frames
        for frame in frames:
            check_aspect(frame.image, image_size(frame.image), size)

    def read(self, index: int, box: Box | None = None) -> Sample:
        """Return a frame, or a part of it."""
        sample = read_sample(self.frames[index], self.size)
        return sample if box is None else crop(sample, box)


def open_split(
    root: Path,
    split: str,
    size: tuple[int, int],
    tasks: Iterable[str],
    labels: str,
    protocol: Protocol,
) -> RawSplit | PreparedSplit | ArraySplit:
    """Open a split of any kind of folder, if its labels can be translated to the protocol's."""
    if is_prepared(root):
        return PreparedSplit(root, split, size, tasks, labels)
    if not is_array_tree(root):
        return RawSplit(root, split, size, tasks, labels)
    check_fine(root, labels)
    if protocol is not ArraySplit.protocol:
        raise InputError(
            f"{root}: holds arrays, which need --protocol {ArraySplit.protocol.name}; found "
            f"--protocol {protocol.name}"
        )
    return ArraySplit(root, split, size, tasks)
