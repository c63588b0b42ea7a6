"""Multi-task losses weighted by learned task uncertainty."""

from uncertainty_mtl import functional
from uncertainty_mtl.heads import GaussianHead, LaplaceHead, ScaledSoftmaxHead, TaskHead
from uncertainty_mtl.loss import MultiTaskLoss, UncertaintyWeightedLoss

__version__ = "0.1.0"

__all__ = [
    "GaussianHead",
    "LaplaceHead",
    "MultiTaskLoss",
    "ScaledSoftmaxHead",
    "TaskHead",
    "UncertaintyWeightedLoss",
    "functional",
]
