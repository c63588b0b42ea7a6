"""The CityScapes label table: which ids exist, which are evaluated, and their colours."""

import numpy as np
from torchvision.datasets import Cityscapes

IGNORE_INDEX = 255
"""Train id of every pixel that is neither trained on nor evaluated."""

TRAIN_CLASSES = tuple(
    sorted((c for c in Cityscapes.classes if 0 <= c.train_id < 255), key=lambda c: c.train_id)
)
"""The 19 evaluated classes, ordered by train id; each has `name`, `id`, `category` and `color`."""

NUM_CLASSES = len(TRAIN_CLASSES)

CLASS_NAMES = tuple(c.name for c in TRAIN_CLASSES)

LABEL_ID = {c.name: c.id for c in Cityscapes.classes}
"""Label id by class name, as written in `labelIds` files."""

HIGHEST_LABEL_ID = max(LABEL_ID.values())

LICENCE_PLATE_ID = 255
"""The value that stands for the id -1 in `labelIds` files, which hold bytes."""

THING_TRAIN_IDS = tuple(c.train_id for c in TRAIN_CLASSES if c.has_instances)
"""Train ids of the 8 classes whose instances are evaluated, person to bicycle."""

SKY_TRAIN_ID = CLASS_NAMES.index("sky")

CATEGORY_NAMES = tuple(dict.fromkeys(c.category for c in TRAIN_CLASSES))
"""The 7 categories of the evaluated classes, in the order of their first class."""

CATEGORY_OF = np.array([CATEGORY_NAMES.index(c.category) for c in TRAIN_CLASSES])
"""Index into `CATEGORY_NAMES` by train id, shape (19,)."""

PALETTE = np.array([c.color for c in TRAIN_CLASSES], dtype=np.uint8)
"""RGB colour by train id, shape (19, 3)."""


# 256 entries, since a label file holds bytes: the id -1 (licence plate) is stored as 255.
TRAIN_ID_FROM_LABEL_ID = np.full(256, IGNORE_INDEX, dtype=np.uint8)
TRAIN_ID_FROM_LABEL_ID[[c.id for c in TRAIN_CLASSES]] = [c.train_id for c in TRAIN_CLASSES]
"""Lookup from a stored label id (0..255) to a train id; what is not evaluated maps to 255."""
