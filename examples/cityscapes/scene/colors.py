"""Maps as pictures: classes in the official colours, instances apart, near bright and far dark."""

import colorsys

import matplotlib
import numpy as np

from examples.cityscapes.labels import IGNORE_INDEX, PALETTE

_UNKNOWN = np.array([128, 128, 128], dtype=np.uint8)
_GOLDEN_RATIO = 0.618034


def color_classes(classes: np.ndarray, palette: np.ndarray = PALETTE) -> np.ndarray:
    """Colour a map of classes, (H, W) to (H, W, 3); what is ignored is black.

    Args:
        classes: Train ids, or the numbers of other classes.
        palette: Their colours, (K, 3).
    """
    colors = np.zeros((IGNORE_INDEX + 1, 3), dtype=np.uint8)
    colors[: len(palette)] = palette
    return colors[classes.astype(np.uint8)]


def color_instances(instances: np.ndarray) -> np.ndarray:
    """Colour instances numbered from 1 up, each by its number; 0 is black."""
    # Steps of the golden ratio around the colour circle never come close to an earlier colour.
    colors = [
        colorsys.hsv_to_rgb(k * _GOLDEN_RATIO % 1, 0.55 + 0.4 * (k % 2), 1.0 - 0.15 * (k % 3))
        for k in range(instances.max() + 1)
    ]
    colors[0] = (0.0, 0.0, 0.0)
    return (255 * np.array(colors)).astype(np.uint8)[instances]


def number_alike(predicted: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Renumber two maps of instances, so that those that overlap most have equal numbers.

    Every true instance lends its number to one predicted instance at most; the others get numbers
    of their own. 0 stays 0.
    """
    ids = np.unique(truth[truth > 0])
    truth = np.where(truth > 0, np.searchsorted(ids, truth) + 1, 0)
    both = (predicted > 0) & (truth > 0)
    pairs, overlaps = np.unique(
        np.stack([predicted[both], truth[both]]), axis=1, return_counts=True
    )
    renumbered = np.zeros(predicted.max() + 1, dtype=np.int64)
    for guess, true in pairs[:, np.argsort(-overlaps)].T:
        if renumbered[guess] == 0 and true not in renumbered:
            renumbered[guess] = true
    unmatched = np.setdiff1d(np.flatnonzero(renumbered == 0), [0])
    renumbered[unmatched] = len(ids) + 1 + np.arange(len(unmatched))
    return renumbered[predicted], truth


def color_disparity(disparity: np.ndarray, largest: float) -> np.ndarray:
    """Colour inverse depth from 0 to `largest`; what is unknown is grey."""
    scaled = np.nan_to_num(disparity, nan=0.0) / max(largest, 1e-6)
    colored = matplotlib.colormaps["magma"](np.clip(scaled, 0, 1), bytes=True)[..., :3]
    return np.where(np.isnan(disparity)[..., None], _UNKNOWN, colored)
