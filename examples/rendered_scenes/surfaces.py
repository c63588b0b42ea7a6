"""Surface numbers of the canvas: what a sample belongs to, a class or one instance."""

import numpy as np

from examples.cityscapes.labels import LABEL_ID

ROAD = LABEL_ID["road"]
SIDEWALK = LABEL_ID["sidewalk"]
BUILDING = LABEL_ID["building"]
WALL = LABEL_ID["wall"]
FENCE = LABEL_ID["fence"]
POLE = LABEL_ID["pole"]
TRAFFIC_LIGHT = LABEL_ID["traffic light"]
SIGN = LABEL_ID["traffic sign"]
VEGETATION = LABEL_ID["vegetation"]
TERRAIN = LABEL_ID["terrain"]
SKY = LABEL_ID["sky"]
PERSON = LABEL_ID["person"]
RIDER = LABEL_ID["rider"]
CAR = LABEL_ID["car"]
TRUCK = LABEL_ID["truck"]
BUS = LABEL_ID["bus"]
TRAIN = LABEL_ID["train"]
MOTORCYCLE = LABEL_ID["motorcycle"]
BICYCLE = LABEL_ID["bicycle"]

GROUND = (ROAD, SIDEWALK, TERRAIN)
"""What lies flat."""

FIRST_INSTANCE = 64
"""Numbers below are label ids; from here on each instance has a number of its own."""

MAX_INSTANCES = 25
"""Most instances in one scene."""


def ids_from_surfaces(surface: np.ndarray, classes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Label ids and instance ids from surface numbers.

    Args:
        surface: Surface numbers, uint8, any shape.
        classes: Label id of each instance, by its number less ``FIRST_INSTANCE``.

    Returns:
        Label ids (uint8) and official instance ids (uint16), shaped like ``surface``. Instances of
        which nothing is seen leave no gap: those of a class are numbered 0, 1, 2, ...
    """
    label = np.arange(256, dtype=np.uint8)
    instance = np.arange(256, dtype=np.uint16)
    seen = np.bincount(surface.ravel(), minlength=256) > 0
    count: dict[int, int] = {}
    for number, class_id in enumerate(classes, start=FIRST_INSTANCE):
        label[number] = class_id
        if seen[number]:
            instance[number] = class_id * 1000 + count.get(class_id, 0)
            count[class_id] = count.get(class_id, 0) + 1
    return label[surface], instance[surface]
