"""What each task is trained towards, as pure functions of the label images."""

from typing import NamedTuple

import torch
from torch import Tensor

from examples.cityscapes.labels import (
    LABEL_ID,
    SKY_TRAIN_ID,
    THING_TRAIN_IDS,
    TRAIN_CLASSES,
    TRAIN_ID_FROM_LABEL_ID,
)

_TRAIN_ID = torch.from_numpy(TRAIN_ID_FROM_LABEL_ID)
_THING_LABEL_IDS = torch.tensor([TRAIN_CLASSES[k].id for k in THING_TRAIN_IDS])
_SKY_LABEL_ID = TRAIN_CLASSES[SKY_TRAIN_ID].id
_EGO_VEHICLE_LABEL_ID = LABEL_ID["ego vehicle"]


class Centroids(NamedTuple):
    """Where the instances of an image have their centres.

    A table rather than an image of vectors: flips, scales and crops act on it exactly, and the
    centre of a cropped instance remains that of the whole.
    """

    ids: Tensor
    """Instance ids, ascending, shape (K,)."""
    xy: Tensor
    """Column and row of each centre in pixels, shape (K, 2)."""


def label_ids_from_instance_ids(instance_ids: Tensor) -> Tensor:
    """Rebuild `labelIds`, which `instanceIds` contain, for trees without them."""
    return torch.where(instance_ids >= 1000, instance_ids // 1000, instance_ids)


def train_ids(label_ids: Tensor) -> Tensor:
    """Map label ids to the 19 train ids; everything else becomes 255. Returns uint8."""
    # The id -1 (licence plate) is stored as 255; the table has 256 entries.
    return _TRAIN_ID[label_ids.long() & 0xFF]


def evaluated_instances(instance_ids: Tensor) -> Tensor:
    """Blank all ids but those of single instances of the 8 evaluated thing classes to 0.

    A thing pixel with an id below 1000 belongs to a group that nobody separated: it has a class
    but no centre.
    """
    is_thing = torch.isin(instance_ids // 1000, _THING_LABEL_IDS)
    return torch.where(is_thing, instance_ids, 0)


def find_centroids(instance_ids: Tensor) -> Centroids:
    """Return the mean pixel coordinates of every instance; id 0 is no instance."""
    rows, columns = torch.nonzero(instance_ids, as_tuple=True)
    ids, member = torch.unique(instance_ids[rows, columns], return_inverse=True)
    pixels = torch.stack([columns, rows], dim=1).double()
    sums = torch.zeros(len(ids), 2, dtype=torch.float64).index_add_(0, member, pixels)
    counts = torch.bincount(member, minlength=len(ids)).unsqueeze(1)
    return Centroids(ids, (sums / counts).float())


def offsets(instance_ids: Tensor, centroids: Centroids) -> Tensor:
    """Return the vector from each pixel to the centre of its instance.

    Shape:
        - ``instance_ids``: (H, W), 0 where there is no instance.
        - output: (2, H, W), `x` first; 0 where there is no instance.
    """
    height, width = instance_ids.shape
    vectors = torch.zeros(2, height, width)
    rows, columns = torch.nonzero(instance_ids, as_tuple=True)
    entry = torch.searchsorted(centroids.ids, instance_ids[rows, columns])
    pixels = torch.stack([columns, rows], dim=1)
    vectors[:, rows, columns] = (centroids.xy[entry] - pixels).T
    return vectors


def inverse_depth(raw_disparity: Tensor, label_ids: Tensor, factor: float) -> Tensor:
    """Return the disparity in pixels of the network input, nan where it is unknown.

    Args:
        raw_disparity: Values of a disparity file. 0 is invalid; ``p > 0`` is ``(p - 1) / 256``
            pixels of the original image, so that 1 is a valid disparity of zero.
        label_ids: Sky is infinitely far wherever the file says nothing. The ego vehicle carries
            disparities too, and they are left out.
        factor: How many times wider the original is than the network input.
    """
    disparity = (raw_disparity.float() - 1) / (256 * factor)
    disparity = torch.where(raw_disparity > 0, disparity, torch.nan)
    is_far = (raw_disparity == 0) & (label_ids == _SKY_LABEL_ID)
    disparity = torch.where(is_far, 0.0, disparity)
    return torch.where(label_ids == _EGO_VEHICLE_LABEL_ID, torch.nan, disparity)
