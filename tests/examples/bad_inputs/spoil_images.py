"""How rows spoil images, label files and camera files."""

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

STEM = "scenes/{folder}/train/town/town_000001_000000_{kind}"

PHOTO = STEM.format(folder="leftImg8bit", kind="leftImg8bit.png")
LABEL_IDS = STEM.format(folder="gtFine", kind="gtFine_labelIds.png")
INSTANCE_IDS = STEM.format(folder="gtFine", kind="gtFine_instanceIds.png")
DISPARITY = STEM.format(folder="disparity", kind="disparity.png")
CAMERA = STEM.format(folder="camera", kind="camera.json")

SIZE = (16, 32)


def replaced(path: str, pixels: np.ndarray) -> Callable[[], None]:
    """Return what writes other pixels to a file."""
    return lambda: Image.fromarray(pixels).save(path, format="PNG")


def converted(path: str, mode: str) -> Callable[[], None]:
    """Return what writes the pixels of a file in another mode of Pillow."""

    def convert() -> None:
        with Image.open(path) as image:
            image.convert(mode).save(path)

    return convert


def write_png(path: str, width: int, height: int, depth: int, color: int, row: bytes) -> None:
    """Write a PNG of kinds that Pillow does not write; all of its rows are alike."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    data = zlib.compress((b"\0" + row) * (height if row else 0))
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    written = b"\x89PNG\r\n\x1a\n"
    for name, content in chunks:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        written += struct.pack(">I", len(content)) + name + content + checksum
    Path(path).write_bytes(written)


def huge(path: str, depth: int, color: int, *, width: int = 60000) -> Callable[[], None]:
    """Return what writes a PNG whose header promises far more than a file could hold."""
    return lambda: write_png(path, width, width // 2, depth, color, b"")


def camera_file(text: str, encoding: str = "utf-8") -> Callable[[], None]:
    """Return what writes a camera file."""

    def write() -> None:
        Path(CAMERA).parent.mkdir(parents=True)
        Path(CAMERA).write_text(text, encoding=encoding)

    return write


def camera(*, baseline: object = 0.2, **intrinsic: object) -> str:
    """Return the text of a camera file."""
    return json.dumps(
        {"extrinsic": {"baseline": baseline}, "intrinsic": {"fx": 40.0, "u0": 16.0, **intrinsic}}
    )
