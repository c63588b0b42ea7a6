"""Clusters of votes, of which neither the number nor the density is known beforehand."""

import numpy as np
from sklearn.cluster import HDBSCAN, cluster_optics_dbscan
from sklearn.neighbors import NearestNeighbors

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
    min_votes = max(2, min_votes)
    if len(votes) <= min_votes:
        return votes.mean(axis=0, keepdims=True)
    # Votes that coincide exactly have an infinite density; a thousandth of a pixel is harmless.
    votes = votes + np.random.default_rng(0).uniform(-1e-3, 1e-3, votes.shape)
    if method == "optics":
        labels = optics(votes, min_votes=min_votes, reach=reach)
    else:
        cluster = HDBSCAN(min_cluster_size=min_votes, min_samples=min_votes, copy=True)
        labels = cluster.fit(votes).labels_
    if labels.max() < 0:
        return votes.mean(axis=0, keepdims=True)
    return np.stack([votes[labels == k].mean(axis=0) for k in range(labels.max() + 1)])


def optics(votes: np.ndarray, *, min_votes: int, reach: float) -> np.ndarray:
    """Return the cluster of each vote, or -1, by OPTICS cut at a reachability of `reach`.

    What scikit-learn's OPTICS returns for points in a plane, in a small part of its time: it sets
    up a search for neighbours for every point, although all points are neighbours.
    """
    nearest = NearestNeighbors(n_neighbors=min_votes).fit(votes)
    core_distances = nearest.kneighbors(votes)[0][:, -1]
    ordering = np.empty(len(votes), dtype=int)
    reachability = np.empty(len(votes))
    x, y = votes.T.astype(np.float64)
    best = np.full(len(votes), np.inf)
    point = 0
    for position in range(len(votes)):
        ordering[position], reachability[point] = point, best[point]
        from_x, from_y = x[point], y[point]
        # From now on infinitely far from every other point, and so never the next one again.
        x[point] = best[point] = np.inf
        distances = np.sqrt((x - from_x) ** 2 + (y - from_y) ** 2)
        np.minimum(best, np.maximum(distances, core_distances[point]), out=best)
        point = int(best.argmin())
    return cluster_optics_dbscan(
        reachability=reachability, core_distances=core_distances, ordering=ordering, eps=reach
    )
