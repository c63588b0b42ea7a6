"""Disparity as a stereo camera measures it: invalid where only one eye sees, in steps of 1/256."""

import numpy as np

_TOLERANCE = 1.0
"""A point is hidden if what covers it in the right image is nearer by more than this, in pixels.
Slanted surfaces, whose disparity changes from pixel to pixel, hide nothing of themselves."""


def seen_by_both(disparity: np.ndarray) -> np.ndarray:
    """Which pixels of the left image the right camera sees too.

    Args:
        disparity: Pixels, shape (H, W): the pixel in column x lies at x - disparity on the right.

    Returns:
        Bool, shape (H, W): False beyond the left border of the right image, and where something
        nearer covers the point there.
    """
    height, width = disparity.shape
    column = np.arange(width, dtype=np.float32) - disparity
    inside = column >= 0
    start = np.arange(height, dtype=np.int32)[:, None] * (width + 1)
    nearest = np.zeros(height * (width + 1), np.float32)
    # A pixel is a pixel wide: it reaches into both columns that its centre falls between.
    for reached in (np.floor(column), np.ceil(column)):
        slot = (start + reached.astype(np.int32))[inside]
        np.maximum.at(nearest, slot, disparity[inside])
    middle = start + np.maximum(np.rint(column).astype(np.int32), 0)
    return inside & (nearest[middle] <= disparity + _TOLERANCE)


def encode(disparity: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Disparity in pixels as written in the files: 0 is invalid, p > 0 means (p - 1) / 256."""
    raw = np.rint(disparity * 256.0) + 1
    return np.where(valid & (raw <= 65535), raw, 0).astype(np.uint16)


def decode(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Disparity in pixels (0 where invalid) and validity of a file's values."""
    valid = raw > 0
    return np.where(valid, (raw.astype(np.float32) - 1) / 256, 0.0), valid
