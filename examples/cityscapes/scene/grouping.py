"""From predicted vectors to instances: every pixel votes for a centre, and votes are clustered."""

import math
from dataclasses import dataclass

import numpy as np

from examples.cityscapes.labels import THING_TRAIN_IDS, TRAIN_CLASSES
from examples.cityscapes.scene.clustering import METHODS, find_centres
from examples.common.errors import InputError
from examples.common.flag_text import flag_of

MAX_VOTES = 1500
"""Votes that are clustered, in all; OPTICS takes 0.4 ms for each."""


@dataclass(frozen=True, kw_only=True)
class Grouping:
    """How votes become instances; the defaults suit street scenes and small round cells alike."""

    clustering: str = "optics"
    """`optics`, as in the paper, or `hdbscan`: faster, and without `reach`."""
    reach: float = 0.012
    """The largest distance between neighbouring votes of one instance, as a fraction of
    `sqrt(2 * area)`, which is the width of a 2:1 image of the same area."""
    min_area: float = 0.06
    """The smallest instance that is found, as a fraction of the area of a typical one."""
    max_votes: int = MAX_VOTES
    """Votes that are clustered, in all."""

    def __post_init__(self) -> None:
        if self.clustering not in METHODS:
            raise InputError(
                f"--clustering: should be {' or '.join(METHODS)}; found {self.clustering!r}"
            )
        for name in ("reach", "min_area"):
            if not 0 < (value := getattr(self, name)) < math.inf:
                raise InputError(f"{flag_of(name)}: should be above 0; found {value}")
        if self.max_votes < 1:
            raise InputError(f"`max_votes` should be at least 1; found {self.max_votes}")


def find_instances(
    offsets: np.ndarray, classes: np.ndarray, grouping: Grouping | None = None
) -> np.ndarray:
    """Group the thing pixels of an image into instances.

    People and vehicles are clustered separately, as a rider's centre may lie on the bicycle's. The
    classes of each are clustered together: a car that is partly taken for a truck is still one car.

    Args:
        offsets: Predicted vectors to the centres, (2, H, W), `x` first, in pixels.
        classes: Predicted train ids, (H, W).
        grouping: How votes become instances.

    Returns:
        Instance numbers from 1 up, int32, (H, W); 0 outside of things.
    """
    grouping = grouping or Grouping()
    instances = np.zeros(classes.shape, dtype=np.int32)
    masks = [
        np.isin(classes, [k for k in THING_TRAIN_IDS if TRAIN_CLASSES[k].category == category])
        for category in ("human", "vehicle")
    ]
    num_pixels = sum(int(mask.sum()) for mask in masks)
    for mask in masks:
        if mask.any():
            budget = max(1, round(grouping.max_votes * int(mask.sum()) / num_pixels))
            groups = group_pixels(offsets, mask, grouping, max_votes=budget)
            instances[mask] = groups + instances.max() + 1
    return instances


def group_pixels(
    offsets: np.ndarray,
    mask: np.ndarray,
    grouping: Grouping | None = None,
    max_votes: int | None = None,
) -> np.ndarray:
    """Return a group for each pixel of a mask, shape (mask.sum(),), with no number unused.

    Pixels need not touch: a car behind a pole votes for one centre from both sides of it.

    Args:
        offsets: Predicted vectors to the centres, (2, H, W), `x` first, in pixels.
        mask: The pixels to group, at least one, (H, W).
        grouping: How votes become instances.
        max_votes: Votes to cluster, if not those of `grouping`.
    """
    from sklearn.metrics import pairwise_distances_argmin  # as in `find_centres`

    grouping = grouping or Grouping()
    rows, columns = np.nonzero(mask)
    vectors = offsets[:, rows, columns].T.astype(np.float32)
    votes = np.stack([columns, rows], axis=1).astype(np.float32) + vectors
    budget = min(len(votes), max_votes or grouping.max_votes)
    # Not random: the same prediction always gives the same instances.
    sample = np.linspace(0, len(votes) - 1, budget).astype(int)
    # In proportion to the root of the area, not to the width: so do the network's errors grow, as
    # it sees images of any shape at about the same number of pixels.
    reach = grouping.reach * math.sqrt(2 * mask.size)
    smallest = grouping.min_area * typical_area(vectors[sample], finest=reach)
    centres = find_centres(
        votes[sample],
        reach=reach,
        min_votes=round(smallest * budget / len(votes)),
        method=grouping.clustering,
    )
    groups = pairwise_distances_argmin(votes, centres.astype(np.float32))
    # A centre that no pixel is nearest to is not an instance.
    return np.unique(groups, return_inverse=True)[1]


def typical_area(vectors: np.ndarray, finest: float) -> float:
    """Estimate how large instances are, in pixels, from how far away their centres are.

    It is the area of the disc whose vectors have the same harmonic mean length: over a disc of
    radius R, `1 / length` averages to `2 / R`. The harmonic mean reflects the small instances
    rather than the large ones, which have most of the pixels.

    Args:
        vectors: Predicted vectors to the centres, (N, 2).
        finest: Shorter vectors count as having this length, as a length of 0 has no inverse.
    """
    lengths = np.maximum(np.linalg.norm(vectors, axis=1), finest)
    return math.pi * (2 / float(np.mean(1 / lengths))) ** 2
