"""The likelihoods as functions of any dtype, composed as the heads compose them."""

from typing import Any

from torch import Tensor

from uncertainty_mtl.forms import GAUSSIAN, LAPLACE, SOFTMAX
from uncertainty_mtl.functional import (
    GAUSSIAN_NOISE,
    LAPLACE_NOISE,
    absolute_error,
    cross_entropy,
    mean_nll,
    squared_error,
)


def gaussian_nll(
    prediction: Tensor, target: Tensor, log_var: Tensor, mask: Any = None, *, full: bool = False
) -> Tensor:
    """Return what a Gaussian head of this log-variance returns."""
    base = squared_error(prediction, target, mask, num_channels=log_var.numel())
    return mean_nll(GAUSSIAN, base, log_var, GAUSSIAN_NOISE.constant if full else 0.0)


def laplace_nll(
    prediction: Tensor, target: Tensor, log_var: Tensor, mask: Any = None, *, full: bool = False
) -> Tensor:
    """Return what a Laplace head of this log-variance returns."""
    base = absolute_error(prediction, target, mask, num_channels=log_var.numel())
    return mean_nll(LAPLACE, base, log_var, LAPLACE_NOISE.constant if full else 0.0)


def scaled_softmax_nll(
    logits: Tensor, target: Tensor, log_var: Tensor, mask: Any = None, *, exact: bool = False
) -> Tensor:
    """Return what a softmax head of this log-variance returns."""
    if exact:
        return cross_entropy(logits, target, mask, log_var=log_var).mean()
    return mean_nll(SOFTMAX, cross_entropy(logits, target, mask), log_var)
