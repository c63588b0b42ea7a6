"""Dice of the three tumour regions, and the error of the synthesised volume."""

import torch
from torch import Tensor

from examples.brain_tumour.volumes import LABELS

REGIONS = {"whole": (1, 2, 4), "enhancing": (4,), "core": (1, 4)}
"""The BraTS labels that make up each region."""


def region_mask(classes: Tensor, region: str) -> Tensor:
    """Return where a region is, given classes 0 to 3."""
    members = [LABELS.index(label) for label in REGIONS[region]]
    return torch.isin(classes, torch.tensor(members, device=classes.device))


def dice(predicted: Tensor, true: Tensor) -> float:
    """Return twice the overlap of two bool masks over their sizes; 1 if both are empty."""
    sizes = int(predicted.sum()) + int(true.sum())
    return 2 * int((predicted & true).sum()) / sizes if sizes else 1.0


def region_dice(predicted: Tensor, true: Tensor, brain: Tensor) -> dict[str, float]:
    """Return the Dice of every region within the brain, given classes 0 to 3."""
    return {
        region: dice(region_mask(predicted, region) & brain, region_mask(true, region) & brain)
        for region in REGIONS
    }


def masked_mse(prediction: Tensor, target: Tensor, mask: Tensor) -> float:
    """Return the mean squared error over the voxels of the mask, all of one shape."""
    return (prediction - target)[mask].square().mean().item()
