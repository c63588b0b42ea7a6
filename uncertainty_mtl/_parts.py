"""Maps a part at a time, so that what is computed on the way stays in the cache."""

import math
from collections.abc import Iterator
from typing import TypeAlias

from torch import Tensor

Part: TypeAlias = tuple[slice, slice]
"""Samples and rows: axes 0 and 2 of a map."""


def parts(like: Tensor, most: int) -> Iterator[Part]:
    """Yield parts of about ``most`` elements, which make up the map.

    Whole samples where they are not much larger than a part: rows of a sample would be copied.

    Args:
        like: Shape ``(N, C, *)``. Without an axis 2 the rows mean nothing.
        most: Elements of a part; there is at least one row.
    """
    num_samples, num_rows = like.shape[0], like.shape[2] if like.ndim > 2 else 1
    per_sample = max(1, like.numel() // max(1, num_samples))
    rows = math.ceil(num_rows / max(1, round(per_sample / most)))
    samples = max(1, most // per_sample)
    for first in range(0, num_samples, samples):
        for top in range(0, num_rows, max(1, rows)):
            yield slice(first, first + samples), slice(top, top + rows)


def part_of(tensor: Tensor, part: Part) -> Tensor:
    """Return the part of a tensor of shape ``(N, C, *)``, or of one that broadcasts to it."""
    samples, rows = part
    return tensor[samples] if tensor.ndim < 3 else tensor[samples, :, rows]
