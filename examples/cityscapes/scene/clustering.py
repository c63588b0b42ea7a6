"""Clusters of votes, of which neither the number nor the density is known beforehand."""

import numpy as np

METHODS = ("optics", "hdbscan")


def find_centres(
    votes: np.ndarray, *, min_votes: int, reach: float, method: str = "optics"
) -> np.ndarray:
    """Return the centres of clusters of votes, (K, 2) with K >= 1.

    OPTICS orders the votes by density; the clusters are cut at a reachability of `reach`. The xi
    method instead looks for steep changes, and finds ever more of them as votes grow dense.
    HDBSCAN looks for the clusters that last longest as `reach` shrinks, and needs none.

    Args:
        votes: Points, (N, 2) with N >= 1.
        min_votes: The fewest votes that make a cluster.
        reach: Votes further apart are of different clusters; unused by HDBSCAN.
        method: `optics` or `hdbscan`.
    """
    # Imported here: a command that finds no instances should not wait two seconds for it.
    from sklearn.cluster import HDBSCAN, OPTICS

    min_votes = max(2, min_votes)
    if len(votes) <= min_votes:
        return votes.mean(axis=0, keepdims=True)
    # Votes that coincide exactly have an infinite density; a thousandth of a pixel is harmless.
    votes = votes + np.random.default_rng(0).uniform(-1e-3, 1e-3, votes.shape)
    if method == "optics":
        cluster = OPTICS(min_samples=min_votes, cluster_method="dbscan", eps=reach)
    else:
        cluster = HDBSCAN(min_cluster_size=min_votes, min_samples=min_votes, copy=True)
    labels = cluster.fit(votes).labels_
    if labels.max() < 0:
        return votes.mean(axis=0, keepdims=True)
    return np.stack([votes[labels == k].mean(axis=0) for k in range(labels.max() + 1)])
