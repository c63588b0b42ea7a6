"""One image and its labels: read, resized, mirrored."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from examples.cityscapes import targets as target_ops
from examples.cityscapes.errors import InputError
from examples.cityscapes.files import Frame, check_aspect, read_ids, read_rgb


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


def read_sample(frame: Frame, size: tuple[int, int]) -> Sample:
    """Read one frame and resize it."""
    image = read_rgb(frame.image)
    native = image.shape[:2]
    check_aspect(frame.image, native, size)

    def read_labels(path: Path) -> Tensor:
        values = read_ids(path)
        if values.shape != native:
            raise InputError(f"{path}: is {values.shape}, but its image is {native}")
        return resize_nearest(torch.from_numpy(values), size)

    nothing = torch.zeros(size, dtype=torch.int32)
    ids = nothing if frame.instance_ids is None else read_labels(frame.instance_ids)
    if frame.label_ids is None:
        label_ids = target_ops.label_ids_from_instance_ids(ids)
    else:
        label_ids = read_labels(frame.label_ids)
    if frame.disparity is None:
        disparity = torch.full(size, torch.nan)
    else:
        raw = read_labels(frame.disparity)
        disparity = target_ops.inverse_depth(raw, label_ids, native[1] / size[1])
    instance_ids = target_ops.evaluated_instances(ids)
    return Sample(
        image=resize_rgb(image, size),
        semantic=target_ops.train_ids(label_ids),
        instance_ids=instance_ids,
        centroids=target_ops.find_centroids(instance_ids),
        disparity=disparity,
    )


def resize_rgb(image: np.ndarray, size: tuple[int, int]) -> Tensor:
    """Resize (H, W, 3) with antialiasing; returns (3, h, w)."""
    pixels = torch.from_numpy(image).permute(2, 0, 1).contiguous()
    return image_ops.resize(pixels, list(size), antialias=True)


def resize_nearest(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Take the pixel under the centre of each output pixel, as "nearest-exact" does.

    Plain "nearest" takes the first pixel of each block, half a block off. Integers all the way:
    torch's own interpolation has no 32 bit ids.
    """
    rows, columns = (
        torch.div((2 * torch.arange(new) + 1) * old, 2 * new, rounding_mode="floor")
        for new, old in zip(size, values.shape, strict=True)
    )
    return values[rows[:, None], columns]


def flip(sample: Sample) -> Sample:
    """Mirror left and right; vectors, derived later, then point the right way by themselves."""
    x, y = sample.centroids.xy.unbind(1)
    width = sample.image.shape[-1]
    return Sample(
        image=sample.image.flip(-1),
        semantic=sample.semantic.flip(-1),
        instance_ids=sample.instance_ids.flip(-1),
        centroids=sample.centroids._replace(xy=torch.stack([width - 1 - x, y], dim=1)),
        disparity=sample.disparity.flip(-1),
    )
