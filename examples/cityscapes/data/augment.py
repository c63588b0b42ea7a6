"""Moving an image and its labels together: mirrored, cropped, scaled.

Pixels are squares around whole coordinates: scaling by k maps x to ``(x + 0.5) * k - 0.5``. Of the
instance labels, only the table of centres is changed. The vectors are computed from it afterwards,
so they always agree with the image.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as image_ops

from examples.cityscapes.data.sample import Sample, resize_nearest


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: int
    left: int
    height: int
    width: int


class Augmentation(NamedTuple):
    """What may happen to a training image."""

    flip: bool = True
    """Whether half of the images are mirrored."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest factor by which the image is scaled."""
    crop: tuple[int, int] | None = None
    """Height and width of the crop from the scaled image; None: as large as the unscaled image."""

    def draw(self, seed: int, size: tuple[int, int]) -> tuple[Box | None, bool]:
        """Return the part of an image of `size` that is shown, and whether it is mirrored.

        Both follow from the seed only.
        """
        mirrored = self.flip and seed % 2 == 1
        if self.crop is None and self.scale == (1.0, 1.0):
            return None, mirrored
        rng = np.random.default_rng(seed)
        # A box that is as large as the image may be a pixel larger by rounding.
        height, width = map(min, box_size(self.crop or size, rng.uniform(*self.scale)), size)
        top = int(rng.integers(size[0] - height + 1))
        left = int(rng.integers(size[1] - width + 1))
        return Box(top, left, height, width), mirrored

    def finish(self, sample: Sample, size: tuple[int, int], mirrored: bool) -> Sample:
        """Scale a part that has been cut out of an image of `size`, and mirror it."""
        sample = rescale(sample, self.crop or size)
        return flip(sample) if mirrored else sample


def box_size(crop: tuple[int, int], scale: float) -> tuple[int, int]:
    """Return the height and width of the part which, scaled, fills `crop`.

    Cutting first and scaling what is left costs a fraction of scaling the whole image.
    """
    return max(1, round(crop[0] / scale)), max(1, round(crop[1] / scale))


def flip(sample: Sample) -> Sample:
    """Mirror left and right; the vectors are computed later, and so point the right way."""
    x, y = sample.centroids.xy.unbind(1)
    width = sample.image.shape[-1]
    return sample._replace(
        image=image_ops.horizontal_flip(sample.image),
        semantic=image_ops.horizontal_flip(sample.semantic),
        instance_ids=image_ops.horizontal_flip(sample.instance_ids),
        centroids=sample.centroids._replace(xy=torch.stack([width - 1 - x, y], dim=1)),
        disparity=image_ops.horizontal_flip(sample.disparity),
    )


def crop(sample: Sample, box: Box) -> Sample:
    """Cut out a box; the centres remain those of the whole instances, even outside of it."""
    corner = torch.tensor([box.left, box.top])
    return sample._replace(
        image=image_ops.crop(sample.image, *box),
        semantic=image_ops.crop(sample.semantic, *box),
        instance_ids=image_ops.crop(sample.instance_ids, *box),
        centroids=sample.centroids._replace(xy=sample.centroids.xy - corner),
        disparity=image_ops.crop(sample.disparity, *box),
    )


def rescale(sample: Sample, size: tuple[int, int]) -> Sample:
    """Resize; disparities, which are distances in the image, and centres scale with it."""
    height, width = sample.image.shape[-2:]
    if size == (height, width):
        return sample
    factor = torch.tensor([size[1] / width, size[0] / height])
    return sample._replace(
        image=image_ops.resize(sample.image, list(size), antialias=True),
        semantic=resize_nearest(sample.semantic, size),
        instance_ids=resize_nearest(sample.instance_ids, size),
        centroids=sample.centroids._replace(xy=(sample.centroids.xy + 0.5) * factor - 0.5),
        disparity=_resize_disparity(sample.disparity, size),
        disparity_at_1m=sample.disparity_at_1m * size[1] / width,
    )


def _resize_disparity(disparity: Tensor, size: tuple[int, int]) -> Tensor:
    # Nearest: averaging across the edge of a car would give a distance at which nothing is.
    return resize_nearest(disparity, size) * (size[1] / disparity.shape[1])
