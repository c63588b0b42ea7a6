"""Heads as users write them: counts without a scale, heavy tails with one, and fourth powers."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Poisson, StudentT

from uncertainty_mtl import TaskHead
from uncertainty_mtl.forms import BaseLoss, PowerForm


def summed(error: Tensor, mask: Tensor | None) -> BaseLoss:
    """Return the sum over valid elements, and their number."""
    if mask is None:
        mask = torch.ones_like(error, dtype=torch.bool)
    return BaseLoss(torch.where(mask, error, 0.0).sum(), mask.sum().to(error.dtype))


class PoissonHead(TaskHead):
    """Counts: the network predicts the logarithm of the rate, and there is no scale to learn."""

    def __init__(self) -> None:
        super().__init__(form=None)

    def base_loss(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the negative log-likelihood."""
        nll = prediction.exp() - target * prediction + torch.lgamma(target + 1)
        return summed(nll, mask)

    def distribution(self, prediction: Any) -> Distribution:
        """Return the distribution of the counts."""
        return Poisson(prediction.exp())


class StudentHead(TaskHead):
    """Student's t with three degrees of freedom, whose learned scale enters no power form."""

    def __init__(self, **options: Any) -> None:
        super().__init__(form=None, scale_inside=True, **options)

    def base_loss(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the negative log-likelihood, less the constant of sigma = 1."""
        log_var = self.bounded_log_var()
        square = (prediction - target) ** 2 * torch.exp(-log_var)
        return summed(2 * torch.log1p(square / 3) + 0.5 * log_var, mask)

    def distribution(self, prediction: Any) -> Distribution:
        """Return the distribution of the target."""
        return StudentT(3.0, prediction, torch.exp(0.5 * self.bounded_log_var()))


class QuarticHead(TaskHead):
    """Fourth powers: p(r) is proportional to exp(-(r / sigma)^4) / sigma."""

    def __init__(self, **options: Any) -> None:
        super().__init__(form=PowerForm(amplitude=1.0, power=2.0), **options)

    def base_loss(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the fourth power of the residual."""
        return summed((prediction - target) ** 4, mask)

    def distribution(self, prediction: Any) -> Distribution:
        """Raise: there is no such distribution in PyTorch."""
        raise TypeError("torch.distributions has no such density")
