"""A prediction from the position of a pixel: the baseline that any network should beat."""

from typing import NamedTuple

import torch
from torch import Tensor

from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.labels import IGNORE_INDEX


class PositionPrior(NamedTuple):
    """Predicts the same for every image."""

    semantic: Tensor
    """Most frequent class of each pixel in the training split, (H, W)."""
    disparity: Tensor
    """Mean disparity of each pixel in the training split, (H, W)."""


def position_prior(dataset: CityscapesDataset) -> PositionPrior:
    """Compute the prior from a split, one image at a time.

    A pixel that is never labelled takes the most frequent class or the mean of all pixels.
    """
    height, width = dataset.size
    num_classes = len(dataset.protocol.class_names)
    class_counts = torch.zeros(num_classes, height, width, dtype=torch.int32)
    sums = torch.zeros(height, width, dtype=torch.float64)
    counts = torch.zeros(height, width, dtype=torch.int64)
    for index in range(len(dataset)):
        sample = dataset.read(index)
        labelled = (sample.semantic != IGNORE_INDEX).unsqueeze(0)
        chosen = torch.where(labelled, sample.semantic, 0).long()
        class_counts.scatter_add_(0, chosen, labelled.int())
        valid = ~sample.disparity.isnan()
        sums += torch.where(valid, sample.disparity, 0.0)
        counts += valid
    semantic = class_counts.argmax(dim=0)
    semantic[class_counts.sum(dim=0) == 0] = class_counts.sum(dim=(1, 2)).argmax()
    mean = sums.sum() / counts.sum().clamp(min=1)
    disparity = torch.where(counts > 0, sums / counts.clamp(min=1), mean)
    return PositionPrior(semantic, disparity.float())
