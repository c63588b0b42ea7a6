"""Multi-task losses weighted by learned task uncertainty."""

from uncertainty_mtl import calibration, forms, functional
from uncertainty_mtl.classification import ScaledSigmoidHead, ScaledSoftmaxHead
from uncertainty_mtl.heads import GaussianHead, LaplaceHead
from uncertainty_mtl.heteroscedastic import (
    HeteroscedasticGaussianHead,
    HeteroscedasticLaplaceHead,
    HeteroscedasticSoftmaxHead,
)
from uncertainty_mtl.history import SigmaHistory
from uncertainty_mtl.loss import UncertaintyWeightedLoss
from uncertainty_mtl.model_uncertainty import (
    ClassificationUncertainty,
    RegressionUncertainty,
    mc_dropout,
)
from uncertainty_mtl.result import MultiTaskLoss
from uncertainty_mtl.task_head import TaskHead

__version__ = "0.1.0"

__all__ = [
    "ClassificationUncertainty",
    "GaussianHead",
    "HeteroscedasticGaussianHead",
    "HeteroscedasticLaplaceHead",
    "HeteroscedasticSoftmaxHead",
    "LaplaceHead",
    "MultiTaskLoss",
    "RegressionUncertainty",
    "ScaledSigmoidHead",
    "ScaledSoftmaxHead",
    "SigmaHistory",
    "TaskHead",
    "UncertaintyWeightedLoss",
    "calibration",
    "forms",
    "functional",
    "mc_dropout",
]
