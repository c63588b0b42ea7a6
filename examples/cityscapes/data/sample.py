"""One image and its labels, as read from the official files."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from examples.cityscapes.data import targets as target_ops
from examples.cityscapes.data.files import (
    Frame,
    check_aspect,
    read_baseline_fx,
    read_rgb,
    read_values,
)
from examples.common.errors import InputError


class Sample(NamedTuple):
    """One image and its labels, at the size of the network's input."""

    image: Tensor
    """RGB, uint8, (3, H, W)."""
    semantic: Tensor
    """Train ids, uint8, (H, W); 255 is ignored."""
    instance_ids: Tensor
    """Ids of single instances of thing classes, int32, (H, W); 0 elsewhere."""
    centroids: target_ops.Centroids
    """Centres of those instances."""
    disparity: Tensor
    """In pixels of this size, float32, (H, W); nan where unknown."""
    disparity_at_1m: float = math.nan
    """Disparity of a point at one metre in pixels of this size; nan without a camera file."""


class RawLabels(NamedTuple):
    """One image and its labels in integers: a `Sample` before its disparity is decoded."""

    image: Tensor
    """RGB, uint8, (3, H, W)."""
    semantic: Tensor
    """Train ids, uint8, (H, W); 255 is ignored."""
    instance_ids: Tensor
    """Ids of single instances of thing classes, int32, (H, W); 0 elsewhere."""
    raw_disparity: Tensor
    """As in the files but for sky and ego vehicle, int32, (H, W); 0 is unknown."""
    baseline_fx: float
    """Disparity of a point at one metre in pixels of the original; nan without a camera file."""
    factor: float
    """How many times wider the original is."""


def read_sample(frame: Frame, size: tuple[int, int]) -> Sample:
    """Read one frame and resize it."""
    raw = read_raw_labels(frame, size)
    return decode(raw, target_ops.find_centroids(raw.instance_ids))


def decode(raw: RawLabels, centroids: target_ops.Centroids) -> Sample:
    """Return the sample that the integers stand for."""
    return Sample(
        image=raw.image,
        semantic=raw.semantic,
        instance_ids=raw.instance_ids,
        centroids=centroids,
        disparity=target_ops.decode_disparity(raw.raw_disparity, raw.factor),
        disparity_at_1m=raw.baseline_fx / raw.factor,
    )


def read_raw_labels(frame: Frame, size: tuple[int, int]) -> RawLabels:
    """Read the files of one frame and resize them."""
    image = read_rgb(frame.image)
    native = image.shape[:2]
    check_aspect(frame.image, native, size)

    def read_labels(path: Path) -> Tensor:
        values = read_values(path)
        if values.shape != native:
            raise InputError(f"{path}: is {values.shape}, but its image is {native}")
        # Picked before they become integers of 32 bits: few of them are left.
        rows, columns = (index.numpy() for index in _centres(native, size))
        return torch.from_numpy(values[rows, columns].astype(np.int32))

    nothing = torch.zeros(size, dtype=torch.int32)
    ids = nothing if frame.instance_ids is None else read_labels(frame.instance_ids)
    if frame.label_ids is None:
        label_ids = target_ops.label_ids_from_instance_ids(ids)
    else:
        label_ids = read_labels(frame.label_ids)
    raw = nothing
    if frame.disparity is not None:
        # Without the file not even the sky is labelled.
        raw = target_ops.settle_disparity(read_labels(frame.disparity), label_ids)
    return RawLabels(
        image=resize_rgb(image, size),
        semantic=target_ops.train_ids(label_ids),
        instance_ids=target_ops.evaluated_instances(ids),
        raw_disparity=raw,
        baseline_fx=math.nan if frame.camera is None else read_baseline_fx(frame.camera),
        factor=native[1] / size[1],
    )


def resize_rgb(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Resize (H, W, 3) with antialiasing; returns (3, h, w)."""
    # As the file has it, colours last: put in planes first, it takes five times as long.
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    return image_ops.resize(pixels, list(size), antialias=True).contiguous()


def resize_nearest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Take the pixel under the centre of each output pixel, as "nearest-exact" does.

    Plain "nearest" takes the first pixel of each block, half a block off. Integers all the way:
    torch's own interpolation has no 32 bit ids.
    """
    return values[_centres(values.shape, size)]


def _centres(native: tuple[int, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the rows, as a column, and the columns under the centres of the output's pixels."""
    rows, columns = (
        torch.div((2 * torch.arange(new) + 1) * old, 2 * new, rounding_mode="floor")
        for new, old in zip(size, native, strict=True)
    )
    return rows.unsqueeze(1), columns
