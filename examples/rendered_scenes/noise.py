"""Errors of labels and disparities, of a known amount."""

import numpy as np

from examples.cityscapes.labels import TRAIN_CLASSES
from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.disparity import decode, encode
from examples.rendered_scenes.texture import TILE, look_up, noise_tile

OUTLIERS = 0.01
"""Share of the valid pixels whose disparity becomes unrelated to the true one, at 1 px."""

STREAK = 3.0
"""Mean length in pixels by which an occlusion grows to the left, at 1 px."""

STEP = 1 / 16
"""Sub-pixel resolution of semi-global matching, in pixels."""


def noisy_disparity(raw: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    r"""Raw disparities as semi-global matching might have found them.

    In this order, for ``sigma`` :math:`= S` pixels of this image:

    1. every row of an invalid area (an occlusion, the sky) grows to the left by
       :math:`\lfloor E \rfloor` pixels, E exponential with mean ``STREAK`` * min(S, 2);
    2. Gaussian noise of standard deviation S on every valid pixel;
    3. patches of 3x3 pixels, a share ``OUTLIERS`` * min(S, 5) of all, are mismatched: each patch
       has one disparity, uniform between 0 and the image's largest;
    4. what is below 0 becomes 0, and all is rounded to multiples of ``STEP``.

    Args:
        raw: Values of a disparity file, uint16, shape (H, W).
        sigma: In pixels of this image; 0 changes nothing.
        rng: Decides where and how much.
    """
    if sigma == 0:
        return raw
    disparity, valid = decode(raw)
    largest = float(disparity.max())
    valid &= ~_streaks(raw, STREAK * min(sigma, 2.0), rng)
    noisy = disparity + sigma * rng.standard_normal(raw.shape)
    height, width = raw.shape
    patches = (height // 3 + 2, width // 3 + 2)
    down, right = rng.integers(0, 3, 2)

    def in_patches(values: np.ndarray) -> np.ndarray:
        return values.repeat(3, 0).repeat(3, 1)[down : down + height, right : right + width]

    mismatched = in_patches(rng.random(patches) < OUTLIERS * min(sigma, 5.0))
    wrong = in_patches(rng.uniform(0, largest, patches))
    noisy = np.where(mismatched, wrong, noisy)
    return encode(np.rint(np.maximum(noisy, 0) / STEP) * STEP, valid)


def _streaks(raw: np.ndarray, mean: float, rng: np.random.Generator) -> np.ndarray:
    """Pixels that are swallowed by an invalid area which starts a little further to the right."""
    width = raw.shape[1]
    starts = np.zeros(raw.shape, bool)
    starts[:, 1:] = (raw[:, 1:] == 0) & (raw[:, :-1] > 0)
    reach = np.floor(rng.exponential(mean, raw.shape))
    column = np.arange(width)
    # The start that reaches furthest to the left of all those to the right of a pixel.
    left_end = np.where(starts, column - reach, width)
    return column >= np.minimum.accumulate(left_end[:, ::-1], axis=1)[:, ::-1]


def noisy_labels(
    label_ids: np.ndarray, instance_ids: np.ndarray, share: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which a share of the pixels has a wrong class, as annotators err.

    Half of the share (or less, if there are too few boundaries) comes from displaced outlines: each
    pixel takes its label from a place up to some pixels away, and the distance varies smoothly over
    the image. The rest comes from confusions: a random segment (an instance, or all of a class
    without instances), or the part of it nearest to a random pixel of it, gets another class of the
    same category, such as truck for bus or wall for fence; for the sky there is no such class. The
    number of pixels with a wrong class is then exactly ``share`` of all, rounded.

    Args:
        label_ids: Official label ids, uint8, shape (H, W).
        instance_ids: Official instance ids, uint16, shape (H, W).
        share: The share of pixels whose class is to be wrong, 0..0.5; 0 changes nothing.
        rng: Decides where.

    Returns:
        Label ids and instance ids, which agree with each other. Outlines between instances of a
        class move as well, without counting; an instance may vanish.
    """
    if share == 0:
        return label_ids, instance_ids
    goal = round(share * label_ids.size)
    moved = _jittered(label_ids, goal // 2, rng)
    labels, instances = label_ids[moved], instance_ids[moved]
    _confuse(labels, instances, label_ids, goal - int((labels != label_ids).sum()), rng)
    return labels, instances


_FARTHEST = 0.02
"""No outline is off by more than about this share of the image's width."""


def _jittered(
    label_ids: np.ndarray, goal: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pixel to copy each label from, so that about ``goal`` labels change, not more."""
    height, width = label_ids.shape
    rows, columns = np.indices(label_ids.shape)
    stretch = TILE / width  # a tile across the image, whatever its size
    offset = rng.uniform(0, TILE, 4)
    field = [
        look_up(noise_tile(8), columns * stretch + a, rows * stretch + b)
        for a, b in (offset[:2], offset[2:])
    ]

    def moved(distance: float) -> tuple[np.ndarray, np.ndarray]:
        row = np.rint(rows + distance * field[0]).astype(int)
        column = np.rint(columns + distance * field[1]).astype(int)
        return np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)

    low, high = 0.0, 0.5 * _FARTHEST * width
    for _ in range(12):
        middle = 0.5 * (low + high)
        changed = int((label_ids[moved(middle)] != label_ids).sum())
        low, high = (middle, high) if changed <= goal else (low, middle)
    return moved(low)


def _confuse(
    labels: np.ndarray,
    instances: np.ndarray,
    truth: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> None:
    """Give ``count`` pixels that are right so far a wrong class, in place."""
    rows, columns = np.indices(labels.shape)
    while count > 0:
        # Pixels that are wrong already are left as they are: a second error might mend the first.
        right = (labels == truth) & (labels != s.SKY)
        segments = np.unique(instances[right])
        if not len(segments):
            return
        segment = segments[rng.integers(len(segments))]
        places = np.flatnonzero(right & (instances == segment))
        start = places[rng.integers(len(places))]
        row, column = rows.flat[places], columns.flat[places]
        distance = np.hypot(row - rows.flat[start], column - columns.flat[start])
        chosen = places[np.argsort(distance, kind="stable")[:count]]
        others = _CONFUSED_WITH[int(labels.flat[start])]
        other = int(others[rng.integers(len(others))])
        labels.flat[chosen] = other
        instances.flat[chosen] = _new_instance(other, instances)
        count -= len(chosen)


def _new_instance(label_id: int, instances: np.ndarray) -> int:
    if label_id not in _THINGS:
        return label_id
    taken = instances[instances // 1000 == label_id]
    return max(label_id * 1000, int(taken.max(initial=0)) + 1)


_THINGS = frozenset(c.id for c in TRAIN_CLASSES if c.has_instances)

_CONFUSED_WITH = {
    c.id: [d.id for d in TRAIN_CLASSES if d.id != c.id and d.category == c.category]
    for c in TRAIN_CLASSES
}
