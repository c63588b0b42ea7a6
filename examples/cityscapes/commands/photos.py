"""Reading images from any source: turned upright, in colour, and no larger than is useful."""

import math
import sys
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np

from examples.cityscapes.data.read_image import image_size, read_rgb
from examples.cityscapes.data.sample import resize_rgb
from examples.cityscapes.scene.maps import input_size
from examples.common.errors import InputError

LONGEST_RATIO = 32
"""How many times longer one side of an image may be than the other."""


class Photo(NamedTuple):
    """An image to predict."""

    pixels: np.ndarray
    """RGB, uint8, (H, W, 3)."""
    is_reduced: bool
    """Whether the image was reduced, so that the file has more pixels."""


class BadImages:
    """Images that cannot be used: the first of them ends a command, unless they are skipped.

    Args:
        num_images: How many images there are in all.
        skip: Whether to go on with the others.
    """

    def __init__(self, num_images: int, *, skip: bool) -> None:
        self._num_images, self._skip = num_images, skip
        self._errors: list[InputError] = []
        self.num_done = 0
        """The number of images whose predictions are complete; the caller keeps it up to date."""

    def add(self, error: InputError) -> None:
        """Keep what is wrong with an image, or raise it with the way out."""
        if self._skip:
            self._errors.append(error)
        elif self._num_images == 1:
            raise error
        else:
            raise InputError(
                f"{error}; {self.num_done} of {self._num_images} images are done; "
                "--skip-bad leaves out such images"
            ) from error

    def report(self) -> None:
        """Print the images that were left out, and raise if there are any."""
        for error in self._errors:
            print(f"left out: {error}", file=sys.stderr)
        if self._errors:
            raise InputError(
                f"{len(self._errors)} of {self._num_images} images cannot be used and were left "
                "out; all others are done"
            )


def check_photos(images: dict[PurePath, Path], bad: BadImages) -> dict[PurePath, Path]:
    """Return the images that can be predicted, judging by their headers only."""
    return {name: path for name, path in images.items() if _is_usable(path, bad)}


def _is_usable(path: Path, bad: BadImages) -> bool:
    try:
        check_photo(path)
    except InputError as error:
        bad.add(error)
        return False
    return True


def check_photo(path: Path) -> None:
    """Raise unless the header of an image can be read and its shape makes sense."""
    height, width = image_size(path)
    if max(height, width) > LONGEST_RATIO * min(height, width):
        raise InputError(
            f"{path}: is {height}x{width} (height x width), but one side should be at most "
            f"{LONGEST_RATIO} times as long as the other; cut it into parts"
        )


def photo_batches(
    images: dict[PurePath, Path],
    size: tuple[int, int],
    batch_size: int,
    max_pixels: int,
    bad: BadImages,
) -> Iterator[tuple[dict[PurePath, Photo], tuple[int, int]]]:
    """Read images; yield batches of those that the network sees at one size, and that size.

    Args:
        images: The images by name.
        size: Height and width of the images that the network was trained on.
        batch_size: The largest number of images in a batch.
        max_pixels: See `read_photo`.
        bad: Collects the images that cannot be read.
    """
    batch: dict[PurePath, Photo] = {}
    seen_at = size
    for name, path in images.items():
        try:
            photo = read_photo(path, max_pixels)
        except InputError as error:
            if batch:  # before `bad.add`, which may raise
                yield batch, seen_at
            batch = {}
            bad.add(error)
            continue
        wanted = input_size(photo.pixels.shape[:2], size)
        if batch and (wanted != seen_at or len(batch) == batch_size):
            yield batch, seen_at
            batch = {}
        seen_at = wanted
        batch[name] = photo
    if batch:
        yield batch, seen_at


def read_photo(path: Path, max_pixels: int) -> Photo:
    """Read an image and turn it upright.

    Args:
        path: The image.
        max_pixels: A larger image is reduced to this many pixels. Everything after the network
            takes memory and time in proportion to them, and the network itself sees far fewer.
    """
    pixels = read_rgb(path, upright=True)
    height, width = pixels.shape[:2]
    scale = math.sqrt(max_pixels / (height * width))
    if scale >= 1:
        return Photo(pixels, is_reduced=False)
    size = (max(1, int(scale * height)), max(1, int(scale * width)))
    reduced = resize_rgb(pixels, size).permute(1, 2, 0).numpy()
    return Photo(np.ascontiguousarray(reduced), is_reduced=True)
