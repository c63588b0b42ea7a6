"""A case as the network sees it, whether read from a file or generated."""

from typing import Any, NamedTuple

import numpy as np

from examples.common.errors import InputError

LABELS = (0, 1, 2, 4)
"""BraTS: background, core without enhancement, oedema, enhancing tumour. There is no 3."""

Size = tuple[int, int, int]


class Volume(NamedTuple):
    """One case, normalised and cropped."""

    name: str
    images: np.ndarray
    """(4, D, H, W) float32 in the order of `MODALITIES`; 0 outside the brain."""
    brain: np.ndarray
    """(D, H, W) bool: the voxels that count."""
    labels: np.ndarray | None
    """(D, H, W) int64 out of `LABELS`, or None for a case that nobody has segmented."""


def prepare(name: str, images: np.ndarray, labels: np.ndarray | None, size: Size) -> Volume:
    """Normalise a case over its brain, and crop or pad it to `size` around the brain's centre.

    Args:
        name: For messages.
        images: (4, D, H, W), skull-stripped: 0 outside the brain.
        labels: (D, H, W), or None.
        size: What to crop or pad to.

    Raises:
        InputError: If there is no brain, or an unknown label.
    """
    # A voxel that is not finite in some modality is left out of all of them.
    brain = np.isfinite(images).all(axis=0) & (images != 0).any(axis=0)
    if not brain.any():
        raise InputError(f"{name}: no voxel is different from 0, so there is no brain to look at")
    if labels is not None:
        unknown = np.unique(labels[~np.isin(labels, LABELS)])
        if len(unknown):
            found = ", ".join(f"{value:g}" for value in unknown[:5])
            raise InputError(f"{name}: the labels should be 0, 1, 2 and 4; found {found}")
        labels = crop_or_pad(labels.astype(np.int64), brain, size)
    normalised = np.stack([normalise(image, brain) for image in images])
    return Volume(
        name, crop_or_pad(normalised, brain, size), crop_or_pad(brain, brain, size), labels
    )


def normalise(image: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Shift and scale to mean 0 and standard deviation 1 over the brain; 0 outside of it."""
    values = image[brain].astype(np.float64)
    spread = values.std()
    result = np.zeros(image.shape, np.float32)
    result[brain] = (values - values.mean()) / (spread if spread > 0 else 1.0)
    return result


def crop_or_pad(array: np.ndarray, brain: np.ndarray, size: Size) -> np.ndarray:
    """Cut a window of `size` out of the last three axes, zeros where it sticks out.

    Its centre is that of the brain's bounding box: a scan need not be centred.
    """
    result = np.zeros((*array.shape[:-3], *size), array.dtype)
    source: list[Any] = [...]
    target: list[Any] = [...]
    for axis, length in enumerate(size):
        others = tuple(other for other in range(3) if other != axis)
        occupied = np.flatnonzero(brain.any(axis=others))
        start = int(occupied[0] + occupied[-1] + 1) // 2 - length // 2
        low, high = max(start, 0), min(start + length, brain.shape[axis])
        source.append(slice(low, high))
        target.append(slice(low - start, high - start))
    result[tuple(target)] = array[tuple(source)]
    return result
