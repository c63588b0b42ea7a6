"""Instances from vectors: time and Rand index of ours, OPTICS over all votes, and HDBSCAN."""

from collections.abc import Callable

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score, rand_score

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import duration, take_turns
from examples.cityscapes.data import targets
from examples.cityscapes.scene.grouping import Grouping, find_instances
from examples.rendered_scenes import sample_scene

THREADS = 1  # scikit-learn uses no more, either

OURS, ALL_OPTICS = "ours (OPTICS, 1500 votes)", "OPTICS, all votes"
SAMPLED_HDBSCAN, ALL_HDBSCAN = "HDBSCAN, 1500 votes", "HDBSCAN, all votes"
NOISE = 0.006
"""Mean absolute error of a vector's component, as a fraction of the width: 1.5 px of 256."""


def run(settings: Settings) -> Report:
    """Measure every image size."""
    heights = settings.choose((64, 128, 256, 512, 1024), (64, 1024), (32,))
    most = settings.choose(
        {ALL_OPTICS: 20_000, ALL_HDBSCAN: 40_000},
        {ALL_OPTICS: 3_000, ALL_HDBSCAN: 3_000},
        {},
    )
    rounds = settings.rounds(5, 3)
    rows = []
    for height in heights:
        rows += measure(height, most, settings, rounds)
    about = (
        "Scenes are generated; the classes are the true ones, and the vectors have Laplace noise "
        f"of {NOISE:.1%} of the width in each component. Every pixel of a thing votes. The Rand "
        "index compares with the true instances over those pixels; adjusted, 0 is chance. Medians "
        f"of {rounds} paired rounds with the range of the middle 80%, over "
        f"{num_scenes(settings)} scenes each; one call before."
    )
    limits = ", ".join(f"{name}, above {number:,}" for name, number in most.items())
    columns = ["image", "votes", "method", "time over ours", "Rand index", "adjusted", "per image"]
    return Report(
        "Instances from vectors",
        about,
        [Table("Time and agreement", columns, rows)],
        notes=[f"Left out, as they take long: {limits}."] if limits else [],
    )


def measure(
    height: int, most: dict[str, int], settings: Settings, rounds: int
) -> list[list[object]]:
    """Return a row for each method at one size of image."""
    scenes = [noisy_scene(height, k, settings.seed) for k in range(num_scenes(settings))]
    votes = max(int((ids > 0).sum()) for ids, _, _ in scenes)
    every = max(votes, 1)
    groupings = {
        OURS: Grouping(),
        SAMPLED_HDBSCAN: Grouping(clustering="hdbscan"),
        ALL_OPTICS: Grouping(max_votes=every),
        ALL_HDBSCAN: Grouping(clustering="hdbscan", max_votes=every),
    }
    groupings = {k: v for k, v in groupings.items() if votes <= most.get(k, votes)}

    found: dict[str, list[np.ndarray]] = {}

    def group_all(name: str) -> Callable[[], None]:
        def call() -> None:
            found[name] = [find_instances(v, kinds, groupings[name]) for _, kinds, v in scenes]

        return call

    timings = take_turns(
        {name: group_all(name) for name in groupings},
        rounds=rounds,
        seed=settings.seed,
        min_seconds=0.0,
        warm_up=1,
    )
    rows: list[list[object]] = []
    for name, instances in found.items():
        pairs = [(t[t > 0], i[t > 0]) for (t, _, _), i in zip(scenes, instances, strict=True)]
        scores = [(rand_score(*pair), adjusted_rand_score(*pair)) for pair in pairs]
        plain, adjusted = np.mean(scores, axis=0)
        per_image = duration(timings.median(name) / len(scenes))
        ratio = timings.ratio(name, OURS)
        size = f"{height}x{2 * height}"
        rows.append([size, votes, name, ratio, f"{plain:.4f}", f"{adjusted:.4f}", per_image])
    return rows


def noisy_scene(height: int, index: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the true instance ids, the classes and noisy vectors of a generated scene."""
    scene = sample_scene("train", index, size=(height, 2 * height), seed=seed)
    ids = targets.evaluated_instances(torch.from_numpy(scene.instance_ids.astype(np.int32)))
    # Group regions have a class but no true instance; without a class nobody asks for them.
    classes = targets.train_ids(torch.from_numpy(scene.label_ids.astype(np.int32)))
    classes = torch.where(ids > 0, classes, 255).numpy()
    vectors = targets.offsets(ids, targets.find_centroids(ids)).numpy()
    noise = np.random.default_rng([seed, index]).laplace(0, NOISE * 2 * height, vectors.shape)
    return ids.numpy(), classes, (vectors + noise).astype(np.float32)


def num_scenes(settings: Settings) -> int:
    """Return how many scenes of each size are grouped in a call."""
    return settings.choose(2, 1, 1)
