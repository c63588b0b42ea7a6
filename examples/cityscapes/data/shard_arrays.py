"""The arrays of a shard: their types and shapes, how they are opened, and a frame's checksum."""

import json
import tokenize
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from examples.cityscapes.data.targets import Centroids
from examples.common.errors import InputError, reason_of

DTYPES = {"image": "u1", "semantic": "u1", "instance_ids": "<u2", "raw_disparity": "<u2"}
"""The type of each array by field of `RawLabels`; (N, H, W), or (N, 3, H, W) for the image."""
BYTES_PER_PIXEL = 3 + 1 + 2 + 2

# What numpy raises on a damaged header, depending on where the damage is.
BROKEN_ARRAY = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    EOFError,
    OverflowError,
    tokenize.TokenError,
)


def shape_of(name: str, num_frames: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of an array of `DTYPES`."""
    return (num_frames, *((3,) if name == "image" else ()), *size)


def table_of(centroids: Centroids) -> np.ndarray:
    """Return the centroids of a frame as they are written, (K, 3)."""
    # Ids and single-precision centres are both exact in double precision.
    return np.column_stack([centroids.ids.numpy(), centroids.xy.numpy()]).astype("<f8")


def map_array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Map an array into memory.

    Raises:
        InputError: If it cannot be read, or has another type or shape.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except BROKEN_ARRAY as error:
        raise InputError(
            f"{path}: not a readable array ({reason_of(error)}); run `prepare` again"
        ) from error
    found = (array.dtype, array.shape, array.flags.c_contiguous)
    if found != (np.dtype(dtype), shape, True):
        raise InputError(
            f"{path}: should be an array of type {dtype} and shape {shape}; found "
            f"{array.dtype.str} and {array.shape}; run `prepare` again"
        )
    # As a plain array: every slice of a `memmap` costs some microseconds of bookkeeping.
    return array.view(np.ndarray)


def checksum(
    arrays: dict[str, np.ndarray], row: int, centroids: Centroids, entry: dict[str, Any]
) -> int:
    """Return the checksum over all that a shard holds of a frame.

    The name of the image is part of it, so frames that have changed places are noticed.

    Args:
        arrays: Those of `DTYPES`.
        row: Row of the frame in the arrays.
        centroids: Centres of the instances of the frame.
        entry: What the index records of the frame.
    """
    recorded = [entry[name] for name in ("num_centroids", "baseline_fx", "factor")]
    crc = zlib.crc32(json.dumps([entry["files"]["image"]["path"], *recorded]).encode())
    crc = zlib.crc32(table_of(centroids).data, crc)
    for name in DTYPES:
        crc = zlib.crc32(arrays[name][row].data, crc)
    return crc
