"""One image and its labels, as read from the official files."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from examples.cityscapes.data import targets as target_ops
from examples.cityscapes.data.camera_file import read_baseline_fx
from examples.cityscapes.data.files import Frame, check_aspect
from examples.cityscapes.data.read_image import (
    read_disparity,
    read_instance_ids,
    read_label_ids,
    read_rgb,
)


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
    """Disparity of a point at one metre in pixels of this size; nan where it is not known."""


class RawLabels(NamedTuple):
    """One image and its labels in integers: a `Sample` before its disparity is decoded."""

    image: Tensor
    """RGB, uint8, (3, H, W)."""
    semantic: Tensor
    """Train ids, uint8, (H, W); 255 is ignored."""
    instance_ids: Tensor
    """Ids of single instances of thing classes, int32, (H, W); 0 elsewhere."""
    raw_disparity: Tensor
    """Disparity as in the files, but for sky and ego vehicle, int32, (H, W); 0 is unknown."""
    baseline_fx: float
    """Disparity of a point at one metre in pixels of the original; nan where it is not known."""
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

    def resized(read: Callable[..., np.ndarray], path: Path) -> Tensor:
        # Pick the pixels first: fewer are then left to check and convert to 32-bit integers.
        where = tuple(index.numpy() for index in _centres(native, size))
        return torch.from_numpy(read(path, native, where))

    nothing = torch.zeros(size, dtype=torch.int32)
    ids = nothing
    if frame.instance_ids is not None:
        ids = resized(read_instance_ids, frame.instance_ids)
    if frame.label_ids is None:
        label_ids = target_ops.label_ids_from_instance_ids(ids)
    else:
        label_ids = resized(read_label_ids, frame.label_ids)
    # Without a disparity file, not even the sky has a label.
    raw, baseline_fx = nothing, math.nan
    if frame.disparity is not None:
        found = resized(read_disparity, frame.disparity)
        raw = target_ops.settle_disparity(found, label_ids)
        if frame.camera is not None:
            baseline_fx = read_baseline_fx(frame.camera, width=native[1])
    return RawLabels(
        image=resize_rgb(image, size),
        semantic=target_ops.train_ids(label_ids),
        instance_ids=target_ops.evaluated_instances(ids),
        raw_disparity=raw,
        baseline_fx=baseline_fx,
        factor=native[1] / size[1],
    )


def resize_rgb(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Resize (H, W, 3) with antialiasing; returns (3, h, w)."""
    # Keep the colours last, as in the file: with a plane per colour, resizing takes 5 times longer.
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    return image_ops.resize(pixels, list(size), antialias=True).contiguous()


def resize_nearest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Take the pixel under the centre of each output pixel, as "nearest-exact" does.

    Plain "nearest" takes the first pixel of each block, which is half a block off. This computes
    with integers only, as torch's own interpolation does not support 32-bit ids.
    """
    return values[_centres(values.shape, size)]


def _centres(native: tuple[int, ...], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Return the rows, as a column, and the columns under the centres of the output's pixels."""
    rows, columns = (
        torch.div((2 * torch.arange(new) + 1) * old, 2 * new, rounding_mode="floor")
        for new, old in zip(size, native, strict=True)
    )
    return rows.unsqueeze(1), columns
