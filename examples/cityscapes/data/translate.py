"""From the labels that are stored to those of a protocol."""

import torch
from torch import Tensor

from examples.cityscapes.data.sample import Sample
from examples.cityscapes.labels import IGNORE_INDEX
from examples.cityscapes.protocols import Protocol


def translate(sample: Sample, stored: Protocol, wanted: Protocol) -> Sample:
    """Return a sample with the classes and the depths of another protocol."""
    if stored is wanted:
        return sample
    disparity = sample.disparity
    if not wanted.has_zero_depth:
        disparity = torch.where(disparity > 0, disparity, torch.nan)
    semantic = _table(wanted)[sample.semantic.long()]
    return sample._replace(semantic=semantic, disparity=disparity)


def _table(protocol: Protocol) -> Tensor:
    """Return the class by stored train id, of which 255 is "ignored"."""
    table = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX, dtype=torch.uint8)
    table[: len(protocol.class_of)] = torch.from_numpy(protocol.class_of)
    return table
