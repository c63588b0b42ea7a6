"""Classes and instances in one map, in the numbering and the files of the official data set."""

from typing import Any

import numpy as np

from examples.cityscapes.labels import CLASS_NAMES, IGNORE_INDEX, TRAIN_CLASSES

_LABEL_ID = np.zeros(IGNORE_INDEX + 1, dtype=np.int32)
_LABEL_ID[: len(TRAIN_CLASSES)] = [c.id for c in TRAIN_CLASSES]

CATEGORIES = [
    {
        "id": c.id,
        "name": c.name,
        "color": list(c.color),
        "supercategory": c.category,
        "isthing": int(c.has_instances),
    }
    for c in sorted(TRAIN_CLASSES, key=lambda c: c.id)
]
"""The `categories` of an official panoptic file."""


def label_ids(train_ids: np.ndarray) -> np.ndarray:
    """Map train ids to the ids that label files hold; 255 becomes 0, unlabelled."""
    return _LABEL_ID[train_ids]


def instance_classes(classes: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Return the most frequent train id of each instance; entry k - 1 belongs to instance k."""
    inside = instances > 0
    num_classes = len(CLASS_NAMES)
    counts = np.bincount(
        (instances[inside] - 1) * num_classes + classes[inside],
        minlength=int(instances.max(initial=0)) * num_classes,
    )
    return counts.reshape(-1, num_classes).argmax(axis=1)


def panoptic_ids(classes: np.ndarray, instances: np.ndarray) -> np.ndarray:
    """Return one map of segments, numbered as in `instanceIds` files.

    An instance is of one class, its most frequent one, and numbered `label id * 1000 + k` with k
    from 0 up within its class; everything else is its label id.

    Args:
        classes: Train ids, (H, W).
        instances: Numbers from 1 up, (H, W); 0 outside of things.
    """
    of_instance = instance_classes(classes, instances)
    numbers = np.zeros(len(of_instance) + 1, dtype=np.int32)
    for train_id in np.unique(of_instance):
        members = np.flatnonzero(of_instance == train_id)
        numbers[members + 1] = _LABEL_ID[train_id] * 1000 + np.arange(len(members))
    return np.where(instances > 0, numbers[instances], _LABEL_ID[classes])


def panoptic_image(ids: np.ndarray) -> np.ndarray:
    """Return the official colours of a map of segments, (H, W, 3): `id = R + 256 G + 256^2 B`."""
    return np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)


def segments_info(ids: np.ndarray) -> list[dict[str, Any]]:
    """Describe each segment of a map as the official panoptic files do; 0 means no segment.

    A thing class without number is a crowd: several instances that nobody separated.
    """
    things = {c["id"] for c in CATEGORIES if c["isthing"]}
    known = {c["id"] for c in CATEGORIES}
    described = []
    for segment in np.unique(ids).tolist():
        category = segment // 1000 if segment >= 1000 else segment
        if category not in known:
            continue
        mask = ids == segment
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        described.append(
            {
                "id": segment,
                "category_id": category,
                "area": int(mask.sum()),
                "bbox": [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1],
                "iscrowd": int(segment < 1000 and category in things),
            }
        )
    return described
