"""The training targets of each task, as pure functions of the label images."""

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
    """The centres of the instances of an image.

    They are a table rather than an image of vectors: flips, scales and crops act on it exactly, and
    the centre of a cropped instance remains that of the whole instance.
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
    """Set all ids to 0 except those of single instances of the 8 evaluated thing classes.

    A thing pixel with an id below 1000 belongs to a group that nobody separated: it has a class
    but no centre.
    """
    is_thing = torch.isin(instance_ids // 1000, _THING_LABEL_IDS)
    return torch.where(is_thing, instance_ids, 0)


def find_centroids(instance_ids: Tensor) -> Centroids:
    """Return the mean pixel coordinates of every instance; id 0 is not an instance."""
    rows, columns = torch.nonzero(instance_ids, as_tuple=True)
    ids, member = torch.unique(instance_ids[rows, columns], return_inverse=True)
    pixels = torch.stack([columns, rows], dim=1).double()
    sums = torch.zeros(len(ids), 2, dtype=torch.float64).index_add_(0, member, pixels)
    counts = torch.bincount(member, minlength=len(ids)).unsqueeze(1)
    return Centroids(ids, (sums / counts).float())


def number_instances(instance_ids: Tensor, centroids: Centroids) -> Tensor:
    """Replace the id of every pixel by its place in the table, from 1; 0 remains "none".

    The numbers (int16) need half the memory of ids, and look up a centre without a search.
    """
    if len(centroids.ids) == 0:
        return torch.zeros_like(instance_ids, dtype=torch.int16)
    # A table indexed by id (all are below 2**16) is faster than a search for every pixel.
    numbers = torch.zeros(int(centroids.ids[-1]) + 1, dtype=torch.int16)
    numbers[centroids.ids.long()] = torch.arange(1, len(centroids.ids) + 1, dtype=torch.int16)
    return numbers.index_select(0, instance_ids.flatten()).view_as(instance_ids)


def stack_centroids(tables: list[Centroids]) -> Tensor:
    """Return the centres of some images by number, 0 for "none"; shape (B, K + 1, 2)."""
    stacked = torch.zeros(len(tables), 1 + max(len(table.xy) for table in tables), 2)
    for row, table in zip(stacked, tables, strict=True):
        row[1 : 1 + len(table.xy)] = table.xy
    return stacked


def offsets_of_numbers(numbers: Tensor, centres: Tensor) -> Tensor:
    """Return the vector from each pixel of a batch to the centre of its instance, on its device.

    Shape:
        - ``numbers``: (B, H, W), as :func:`number_instances` returns them.
        - ``centres``: (B, K + 1, 2), as :func:`stack_centroids` returns them.
        - output: (B, 2, H, W), `x` first; 0 where there is no instance.
    """
    batch, height, width = numbers.shape
    device = numbers.device
    place = numbers.int() + centres.shape[1] * torch.arange(batch, device=device).int().view(
        -1, 1, 1
    )
    is_instance = (numbers > 0).to(centres.dtype)  # once, not in every product
    columns = torch.arange(width, dtype=centres.dtype, device=device)
    rows = torch.arange(height, dtype=centres.dtype, device=device).unsqueeze(1)
    vectors = centres.new_empty(batch, 2, height, width)
    for axis, position in enumerate((columns, rows)):
        goal = centres[:, :, axis].flatten().index_select(0, place.flatten()).view_as(place)
        # Each operation overwrites its input: allocating memory would take longer than computing.
        torch.mul(goal.sub_(position), is_instance, out=vectors[:, axis])
    return vectors


def settle_disparity(raw_disparity: Tensor, label_ids: Tensor) -> Tensor:
    """Correct the raw disparity by what the labels say; 0 still means "unknown".

    Where the file has no value for the sky, it gets a raw value of 1, which is infinitely far. The
    ego vehicle has disparities in the files; they are set to unknown.
    """
    is_far = (raw_disparity == 0) & (label_ids == _SKY_LABEL_ID)
    raw = torch.where(is_far, 1, raw_disparity)
    return torch.where(label_ids == _EGO_VEHICLE_LABEL_ID, 0, raw)


def decode_disparity(raw_disparity: Tensor, factor: float) -> Tensor:
    """Return the disparity that raw values stand for, divided by `factor`.

    0 is unknown and becomes nan; ``p > 0`` is ``(p - 1) / 256`` pixels of the original image, so
    that 1 is a valid disparity of zero.
    """
    disparity = raw_disparity.float()
    known = disparity / disparity  # 1, or 0 / 0: ten times as fast as a selection
    return disparity.sub_(1).div_(256 * factor).mul_(known)
