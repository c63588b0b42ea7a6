"""The two losses, weighed by learned uncertainty or by hand."""

import torch
from torch import Tensor

from examples.brain_tumour.brain_config import BrainConfig, manual_weights
from uncertainty_mtl import GaussianHead, ScaledSoftmaxHead, TaskHead, UncertaintyWeightedLoss


def build_loss(config: BrainConfig) -> UncertaintyWeightedLoss:
    """Return the loss that `--weighting` asks for."""
    class_weight = torch.tensor(config.class_weight)
    heads: dict[str, TaskHead] = {
        "synthesis": GaussianHead(init_sigma=1.0),
        "segmentation": ScaledSoftmaxHead(init_sigma=1.0, class_weight=class_weight),
    }
    weights = manual_weights(config.weighting)
    if weights is None:
        return UncertaintyWeightedLoss(heads)
    return UncertaintyWeightedLoss(heads, estimator="fixed", weights=weights)


def learned_sigmas(loss_fn: UncertaintyWeightedLoss) -> dict[str, Tensor]:
    """Return the sigmas by task; none where the weights are fixed."""
    return {} if loss_fn.estimator == "fixed" else loss_fn.sigmas()
