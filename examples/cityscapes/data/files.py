"""Finding and reading the files of a dataset in the official CityScapes layout."""

import json
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from examples.common.errors import InputError

_IMAGE_SUFFIX = "_leftImg8bit.png"
# Everything that Pillow raises on damaged files, depending on where the damage is.
_BROKEN_IMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


class Frame(NamedTuple):
    """The files of one image; a file that the tree does not hold is None."""

    image: Path
    label_ids: Path | None
    instance_ids: Path | None
    disparity: Path | None
    camera: Path | None = None

    @property
    def stem(self) -> str:
        """City, sequence and frame, as in every file name of the frame."""
        return self.image.name.removesuffix(_IMAGE_SUFFIX)


def find_frames(root: Path, split: str, *, need_instances: bool = True) -> list[Frame]:
    """List the frames of a split, ordered by city and name.

    Args:
        root: Folder that holds `leftImg8bit/`, `gtFine/` and, where there is depth, `disparity/`
            and `camera/`.
        split: `train`, `val` or `test`.
        need_instances: Whether `labelIds` alone are not enough.

    Raises:
        InputError: If the split holds no image, or an image has no labels.
    """
    return [_frame(root, split, image, need_instances) for image in find_images(root, split)]


def find_images(root: Path, split: str) -> list[Path]:
    """List the images of a split, ordered by city and name; those of `test` have no labels."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    images = sorted((root / "leftImg8bit" / split).glob(f"*/*{_IMAGE_SUFFIX}"))
    if not images:
        raise InputError(f"{root}: no images found as leftImg8bit/{split}/*/*{_IMAGE_SUFFIX}")
    return images


def _frame(root: Path, split: str, image: Path, need_instances: bool) -> Frame:
    city, stem = image.parent.name, image.name.removesuffix(_IMAGE_SUFFIX)
    label_ids = root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
    instance_ids = root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png"
    disparity = root / "disparity" / split / city / f"{stem}_disparity.png"
    camera = root / "camera" / split / city / f"{stem}_camera.json"
    if not instance_ids.is_file() and (need_instances or not label_ids.is_file()):
        raise InputError(f"{image}: has no labels; {instance_ids} not found")
    optional = (label_ids, instance_ids, disparity, camera)
    return Frame(image, *(path if path.is_file() else None for path in optional))


def read_rgb(path: Path) -> np.ndarray:
    """Read a colour image as uint8 of shape (H, W, 3)."""
    try:
        with Image.open(path) as image:
            # Converting copies, even where there is nothing to convert.
            return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except _BROKEN_IMAGE as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def read_ids(path: Path) -> np.ndarray:
    """Read an 8 or 16 bit image of one channel as int32 of shape (H, W)."""
    return read_values(path).astype(np.int32)


def read_values(path: Path) -> np.ndarray:
    """Read an image of one channel, read-only, in the type of the file."""
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except _BROKEN_IMAGE as error:
        raise InputError(f"{path}: not a readable image ({error})") from error
    if values.ndim != 2:
        raise InputError(f"{path}: should have one channel; found {values.ndim} axes")
    return values


def read_baseline_fx(path: Path) -> float:
    """Read from a camera file how many pixels of disparity a point at one metre has.

    That is baseline times fx, in pixels of the original image. It differs by 6% between cities.
    """
    try:
        camera = json.loads(path.read_text(encoding="utf-8"))
        value = float(camera["extrinsic"]["baseline"]) * float(camera["intrinsic"]["fx"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a readable camera file ({error!r})") from error
    if not 0 < value < math.inf:
        raise InputError(f"{path}: baseline times fx should be above 0; found {value}")
    return value


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width, reading only the header."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except _BROKEN_IMAGE as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def check_aspect(path: Path, found: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise unless an image of size `found` can be resized to `size` without distortion."""
    if found[0] * size[1] != found[1] * size[0]:
        raise InputError(
            f"{path}: is {found[0]}x{found[1]} (height x width), which has another shape than "
            f"--size {size[0]}x{size[1]}"
        )
