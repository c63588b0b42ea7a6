"""From predicted vectors to instances: every pixel votes for a centre, and votes are clustered."""

import numpy as np
from sklearn.cluster import OPTICS
from sklearn.metrics import pairwise_distances_argmin

from examples.cityscapes.labels import THING_TRAIN_IDS, TRAIN_CLASSES

MAX_VOTES = 1500
"""Votes that OPTICS gets to see, in all: it takes 0.4 ms for each."""

REACH = 0.012
"""Votes reach each other up to this distance, as a fraction of the image's width."""

MIN_AREA = 1 / 800
"""The smallest instance that founds a cluster of its own, as a fraction of the image's area."""


def find_instances(offsets: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Group the thing pixels of an image into instances.

    People and vehicles are clustered apart, as a rider's centre may lie on the bicycle's; classes
    within them together, as a car of which a part is taken for a truck is still one car.

    Args:
        offsets: Predicted vectors to the centres, (2, H, W), `x` first, in pixels.
        classes: Predicted train ids, (H, W).

    Returns:
        Instance numbers from 1 up, int32, (H, W); 0 outside of things.
    """
    instances = np.zeros(classes.shape, dtype=np.int32)
    things = np.isin(classes, THING_TRAIN_IDS)
    for category in ("human", "vehicle"):
        ids = [k for k in THING_TRAIN_IDS if TRAIN_CLASSES[k].category == category]
        mask = np.isin(classes, ids)
        if mask.any():
            budget = max(1, round(MAX_VOTES * mask.sum() / things.sum()))
            instances[mask] = group_pixels(offsets, mask, budget) + instances.max() + 1
    return instances


def group_pixels(offsets: np.ndarray, mask: np.ndarray, max_votes: int = MAX_VOTES) -> np.ndarray:
    """Return a group from 0 up for each pixel of a mask, shape (mask.sum(),).

    Pixels need not touch: a car behind a pole votes for one centre from both sides of it.
    """
    rows, columns = np.nonzero(mask)
    votes = np.stack([columns, rows], axis=1) + offsets[:, rows, columns].T
    height, width = mask.shape
    # Not random: the same prediction always gives the same instances.
    sampled = votes[np.linspace(0, len(votes) - 1, min(len(votes), max_votes)).astype(int)]
    votes_per_pixel = len(sampled) / len(votes)
    centres = find_centres(
        sampled,
        reach=REACH * width,
        min_votes=round(MIN_AREA * height * width * votes_per_pixel),
    )
    return pairwise_distances_argmin(votes, centres)


def find_centres(votes: np.ndarray, *, reach: float, min_votes: int) -> np.ndarray:
    """Return the centres of clusters of votes, (K, 2) with K >= 1.

    OPTICS orders the votes by density; the clusters are cut at a reachability of `reach`. The xi
    method instead looks for steep changes, and finds ever more of them as votes grow dense.
    """
    min_votes = max(2, min_votes)
    if len(votes) <= min_votes:
        return votes.mean(axis=0, keepdims=True)
    # Votes that coincide exactly have an infinite density; a thousandth of a pixel is harmless.
    jitter = np.random.default_rng(0).uniform(-1e-3, 1e-3, votes.shape)
    optics = OPTICS(min_samples=min_votes, cluster_method="dbscan", eps=reach)
    labels = optics.fit(votes + jitter).labels_
    if labels.max() < 0:
        return votes.mean(axis=0, keepdims=True)
    return np.stack([votes[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
