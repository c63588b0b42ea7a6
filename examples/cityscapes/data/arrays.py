"""The preprocessed datasets of papers on multi-task learning: one NumPy array for every map.

MTAN, LibMTL, Nash-MTL and FAMO train on such folders. `{train,val}/image/N.npy` holds an image, and
the files `N.npy` in `label_7/` and `depth/` hold the classes and the inverse depths of that image.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from examples.cityscapes.data.augment import Box, crop
from examples.cityscapes.data.files import FINE, Frame
from examples.cityscapes.data.sample import Sample
from examples.cityscapes.data.shard_arrays import BROKEN_ARRAY
from examples.cityscapes.data.targets import find_centroids
from examples.cityscapes.labels import IGNORE_INDEX
from examples.cityscapes.protocols import TWO_TASK
from examples.common.errors import InputError, reason_of
from examples.common.listing import entries

IMAGES, LABELS, DEPTHS = "image", "label_7", "depth"
"""The folders of a split."""

_UNKNOWN_CLASS = -1
_COLORS = "colours from 0 to 1"


def is_array_tree(root: Path) -> bool:
    """Whether a folder holds arrays, rather than the official files or a prepared copy."""
    return any((root / split / IMAGES).is_dir() for split in ("train", "val"))


def check_fine(root: Path, labels: str) -> None:
    """Raise if coarse labels are asked for, which a tree of arrays does not have."""
    if labels != FINE:
        raise InputError(
            f"--labels: {labels} needs the official layout, but {root} holds arrays; leave out the "
            "flag"
        )


class ArraySplit:
    """The images of one split, ordered by number.

    Args:
        root: Folder that holds `train/` and `val/`.
        split: `train` or `val`.
        size: Height and width, those of the arrays.
        tasks: Decides which arrays an image must have.

    Raises:
        InputError: If the split holds no image, an array is absent, or an image has another size.
    """

    protocol = TWO_TASK
    """The protocol whose labels the samples have."""

    def __init__(self, root: Path, split: str, size: tuple[int, int], tasks: Iterable[str]) -> None:
        self.size = size
        folder = root / split
        images = numbered(folder / IMAGES)
        if not images:
            raise InputError(f"{root}: no images found as {split}/{IMAGES}/N.npy")
        needed = [name for name, task in ((LABELS, "semantic"), (DEPTHS, "depth")) if task in tasks]
        self.frames = [_frame(folder, image.name, needed) for image in images]
        for frame in self.frames:
            open_image(frame.image, size)

    def read(self, index: int, box: Box | None = None) -> Sample:
        """Return an image with its labels, or a part of it."""
        frame, no_ids = self.frames[index], torch.zeros(self.size, dtype=torch.int32)
        sample = Sample(
            image=torch.from_numpy(read_colors(frame.image, self.size)),
            semantic=torch.full(self.size, IGNORE_INDEX, dtype=torch.uint8)
            if frame.label_ids is None
            else torch.from_numpy(read_classes(frame.label_ids, self.size)),
            instance_ids=no_ids,
            centroids=find_centroids(no_ids),
            disparity=torch.full(self.size, torch.nan)
            if frame.disparity is None
            else torch.from_numpy(read_depth(frame.disparity, self.size)),
        )
        return sample if box is None else crop(sample, box)


def numbered(folder: Path) -> list[Path]:
    """Return the files `N.npy` of a folder, ordered by number."""
    paths = entries(folder) if folder.is_dir() else ()
    return sorted(
        (path for path in paths if path.suffix == ".npy" and path.stem.isdecimal()),
        key=lambda path: int(path.stem),
    )


def _frame(folder: Path, name: str, needed: list[str]) -> Frame:
    paths = {kind: folder / kind / name for kind in needed}
    for path in paths.values():
        if not path.is_file():
            raise InputError(f"{folder / IMAGES / name}: has no labels; {path} not found")
    return Frame(folder / IMAGES / name, paths.get(LABELS), None, paths.get(DEPTHS))


def open_image(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Map the colours of an image into memory, of any size if None is given."""
    return _opened(path, 3, _COLORS, size, "--size is")


def read_colors(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read an image as uint8, (3, H, W)."""
    pixels = np.array(open_image(path, size))
    if pixels.dtype.kind != "f" or not ((pixels >= 0) & (pixels <= 1)).all():
        raise InputError(f"{path}: should hold floating-point {_COLORS}; found {_range(pixels)}")
    return np.ascontiguousarray(np.rint(pixels * 255).astype(np.uint8).transpose(2, 0, 1))


def read_classes(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read classes as uint8, (H, W), with 255 for what is ignored."""
    classes = np.array(_opened(path, None, "classes", size, "its image is"))
    highest = len(TWO_TASK.class_names) - 1
    known = (classes == np.rint(classes)) & (classes >= _UNKNOWN_CLASS) & (classes <= highest)
    if not known.all():
        raise InputError(
            f"{path}: should hold whole numbers from 0 to {highest}, or {_UNKNOWN_CLASS} for no "
            f"class; found {classes[~known][0]}"
        )
    return np.where(classes == _UNKNOWN_CLASS, IGNORE_INDEX, classes).astype(np.uint8)


def read_depth(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read inverse depths as float32, (H, W), with nan for what is unknown."""
    opened = _opened(path, 1, "inverse depths", size, "its image is")
    depth = opened[..., 0].astype(np.float32)
    if not np.isfinite(depth).all():
        raise InputError(f"{path}: should hold finite inverse depths; found {_range(depth)}")
    return np.where(depth > 0, depth, np.float32(np.nan))


def _opened(
    path: Path, channels: int | None, what: str, size: tuple[int, int] | None, whose: str
) -> np.ndarray:
    """Map an array of numbers into memory; so far, only its header is read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise InputError(f"{path}: not a readable array ({reason_of(error)})") from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        found = getattr(array, "dtype", type(array).__name__)
        raise InputError(f"{path}: should be an array of numbers; found {found}")
    last = () if channels is None else (channels,)
    if array.ndim != 2 + len(last) or array.shape[2:] != last or 0 in array.shape:
        wanted = ", ".join(["H", "W", *map(str, last)])
        raise InputError(f"{path}: should hold {what} of shape ({wanted}); found {array.shape}")
    if size not in (None, array.shape[:2]):
        found, wanted = ("x".join(map(str, each)) for each in (array.shape[:2], size))
        raise InputError(f"{path}: is {found} (height x width), but {whose} {wanted}")
    return array


def _range(values: np.ndarray) -> str:
    return f"{values.dtype} from {values.min():g} to {values.max():g}"
