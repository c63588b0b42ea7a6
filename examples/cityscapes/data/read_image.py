"""Reading image and label files, with the checks that all commands share."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from examples.cityscapes.labels import HIGHEST_LABEL_ID, LICENCE_PLATE_ID
from examples.common.errors import InputError

MAX_PIXELS = 2**27
"""Images whose header says more pixels are refused: decoding them could use up all memory."""

# Everything that Pillow raises on damaged files, depending on where the damage is.
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)

_BITS_PER_SAMPLE = 258  # a tag of TIFF
_PNG_COLORS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}

Size = tuple[int, int]
Where = tuple[Any, ...]
"""An index into an image: which of its pixels are wanted."""
_ALL: Where = (...,)


class Kind(NamedTuple):
    """How an image file stores its pixels."""

    format: str
    bits: int
    """Bits of one channel."""
    color: str

    def __str__(self) -> str:
        return f"{self.format} of {self.bits}-bit {self.color}"


def image_size(path: Path) -> tuple[int, int]:
    """Return height and width of a photo, reading only its header."""
    with _opened(path) as (image, kind):
        _check_photo(path, kind)
        return image.height, image.width


def read_rgb(path: Path, *, upright: bool = False) -> np.ndarray:
    """Read a photo as uint8 of shape (H, W, 3).

    Args:
        path: The file.
        upright: Whether to turn it as its EXIF orientation says. A photo with labels stays as it
            is stored, since its labels do.
    """
    with _opened(path) as (stored, kind):
        _check_photo(path, kind)
        image = ImageOps.exif_transpose(stored) if upright else stored
        # Converting copies, even where there is nothing to convert.
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def read_label_ids(path: Path, size: Size | None = None, where: Where = _ALL) -> np.ndarray:
    """Read label ids as int32; the id -1 is stored as 255.

    Args:
        path: The file.
        size: Height and width that it has to have; None: any.
        where: Which pixels are wanted, and checked.
    """
    remedy = "the file may be left out where instanceIds are right"
    ids = _read_gray(path, 8, "label ids", remedy, size)[where]
    is_unknown = (ids > HIGHEST_LABEL_ID) & (ids != LICENCE_PLATE_ID)
    if is_unknown.any():
        raise InputError(
            f"{path}: should hold label ids from 0 to {HIGHEST_LABEL_ID}, or {LICENCE_PLATE_ID}; "
            f"found {ids[is_unknown][0]}"
        )
    return ids.astype(np.int32)


def read_instance_ids(path: Path, size: Size | None = None, where: Where = _ALL) -> np.ndarray:
    """Read instance ids as int32: `label id * 1000 + number`, or a label id.

    Args:
        path: The file.
        size: Height and width that it has to have; None: any.
        where: Which pixels are wanted, and checked.
    """
    remedy = "without this file, --tasks semantic,depth can still be trained"
    ids = _read_gray(path, 16, "instance ids", remedy, size)[where]
    is_unknown = (ids > HIGHEST_LABEL_ID) & (ids < 1000) & (ids != LICENCE_PLATE_ID)
    is_unknown |= ids >= 1000 * (HIGHEST_LABEL_ID + 1)
    if is_unknown.any():
        raise InputError(
            f"{path}: should hold instance ids of the label ids from 0 to {HIGHEST_LABEL_ID}; "
            f"found {ids[is_unknown][0]}"
        )
    return ids.astype(np.int32)


def read_disparity(path: Path, size: Size | None = None, where: Where = _ALL) -> np.ndarray:
    """Read raw disparities as int32: 0 is unknown, and `p > 0` is `(p - 1) / 256` pixels.

    Args:
        path: The file.
        size: Height and width that it has to have; None: any.
        where: Which pixels are wanted.
    """
    remedy = "--tasks semantic,instance does without it"
    return _read_gray(path, 16, "disparities", remedy, size)[where].astype(np.int32)


def _read_gray(path: Path, bits: int, what: str, remedy: str, size: Size | None) -> np.ndarray:
    """Read a label file, read-only, in the type of the file."""
    with _opened(path) as (image, found):
        # Palettes are refused: programs that compress PNGs turn gray into colours of a palette,
        # after which the ids are no longer the numbers in the file.
        expected = Kind("PNG", bits, "gray")
        if found != expected:
            raise InputError(
                f"{path}: should hold {what} in a {expected}; found a {found}; {remedy}"
            )
        if size is not None and (image.height, image.width) != tuple(size):
            raise InputError(
                f"{path}: is {image.height}x{image.width} (height x width), but its image is "
                f"{size[0]}x{size[1]}"
            )
        return np.asarray(image)


def _check_photo(path: Path, found: Kind) -> None:
    # Pillow turns 16-bit gray values white, and cuts 16-bit colours down to the upper half.
    if found.bits > 8:
        raise InputError(
            f"{path}: should be an image with 8 bits a channel; found a {found}; convert it first"
        )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Image.Image, Kind]]:
    """Open an image, of which nothing but the header has been read."""
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # Pillow's own bounds: it warns at one, and refuses at twice as many pixels.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            header = file.read(26)
            file.seek(0)
            with Image.open(file) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise _too_large(path, f"{image.width * image.height:,}")
                yield image, _kind(image, header)
    except Image.DecompressionBombError as error:
        raise _too_large(path, "far more") from error
    except UnidentifiedImageError as error:
        raise InputError(f"{path}: not a readable image (its format is not known)") from error
    except _BROKEN as error:
        raise InputError(f"{path}: not a readable image ({error})") from error


def _too_large(path: Path, found: str) -> InputError:
    return InputError(f"{path}: should have at most {MAX_PIXELS:,} pixels; found {found}")


def _kind(image: Image.Image, header: bytes) -> Kind:
    """Say how a file stores its pixels, which Pillow's `mode` does not always tell."""
    if image.format == "PNG":
        return Kind("PNG", header[24], _PNG_COLORS.get(header[25], "unknown"))
    bits = 8
    if isinstance(image, TiffImageFile):
        bits = max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,)))
    elif image.mode.startswith("I;16"):
        bits = 16
    elif image.mode in ("I", "F"):
        bits = 32
    return Kind(image.format or "file", bits, image.mode)
