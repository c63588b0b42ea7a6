r"""The likelihood formulas as pure functions of tensors, one to a line, with no state.

Throughout, ``log_var`` is :math:`s = \log \sigma^2`, of shape ``(1,)`` or ``()`` for one scale in
all, or ``(C,)`` for one scale per channel (axis 1). Half-precision inputs are computed in float32.
The heads in :mod:`uncertainty_mtl.heads` hold the parameter and call these.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from uncertainty_mtl._checks import (
    check_channels,
    check_floating,
    check_labels,
    check_mask,
    check_same_shape,
    without_channels,
)

GAUSSIAN_CONSTANT = 0.5 * math.log(2 * math.pi)
"""What the Gaussian negative log-likelihood drops unless ``full=True``."""

LAPLACE_CONSTANT = 0.5 * math.log(2)
"""What the Laplace negative log-likelihood drops unless ``full=True``."""


class BaseLoss(NamedTuple):
    """The plain error that a head weighs, before its mean is taken.

    A sum and a count, not a mean: parts of a batch then combine exactly, and a part without a
    single valid element needs no special case.

    Attributes:
        summed: Error summed over the valid elements, shape ``()``, or ``(C,)`` per channel.
        num_valid: Number of valid elements (their total class weight, where classes are
            weighted), a floating tensor of the same shape.
    """

    summed: Tensor
    num_valid: Tensor

    def mean(self) -> Tensor:
        """Return the mean over the valid elements, or 0 where there are none."""
        return self.summed / _at_least_one_element(self.num_valid)


def squared_error(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, *, num_channels: int = 1
) -> BaseLoss:
    """Return the squared error, summed per channel if ``num_channels`` is above 1.

    Shapes and errors as in :class:`~uncertainty_mtl.GaussianHead`.
    """
    return _summed_error(torch.square, prediction, target, mask, num_channels)


def absolute_error(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, *, num_channels: int = 1
) -> BaseLoss:
    """Return the absolute error, summed per channel if ``num_channels`` is above 1.

    Shapes and errors as in :class:`~uncertainty_mtl.LaplaceHead`.
    """
    return _summed_error(torch.abs, prediction, target, mask, num_channels)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    ignore_index: int = -100,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> BaseLoss:
    """Return the cross-entropy; shapes, errors: :class:`~uncertainty_mtl.ScaledSoftmaxHead`.

    ``ignore_index``, ``class_weight`` (its ``weight``) and ``label_smoothing`` are those of
    :func:`torch.nn.functional.cross_entropy`.
    """
    check_floating("prediction", logits)
    check_labels(logits, target)
    logits, target = _at_least_float32(logits), target.long()
    if mask is not None:
        check_mask(mask, target.shape)
        target = torch.where(mask, target, ignore_index)
    valid = target != ignore_index
    if class_weight is None:
        num_valid = valid.sum().to(logits.dtype)
    else:
        class_weight = class_weight.to(logits.dtype)
        num_valid = torch.where(valid, class_weight[torch.where(valid, target, 0)], 0.0).sum()
    summed = _summed_cross_entropy(logits, target, class_weight, ignore_index, label_smoothing)
    return BaseLoss(summed, num_valid)


def gaussian_nll(
    prediction: Tensor,
    target: Tensor,
    log_var: Tensor,
    mask: Tensor | None = None,
    *,
    full: bool = False,
) -> Tensor:
    r"""Mean Gaussian negative log-likelihood; see :class:`~uncertainty_mtl.GaussianHead`.

    .. math:: \tfrac12 e^{-s}\, \overline{(f - y)^2} + \tfrac12 s
              \quad \bigl[ + \tfrac12 \log 2\pi \text{ if full} \bigr]
    """
    base = squared_error(prediction, target, mask, num_channels=log_var.numel())
    return scaled_nll(base, log_var, gaussian_weight, GAUSSIAN_CONSTANT if full else 0.0)


def laplace_nll(
    prediction: Tensor,
    target: Tensor,
    log_var: Tensor,
    mask: Tensor | None = None,
    *,
    full: bool = False,
) -> Tensor:
    r"""Mean Laplace negative log-likelihood; see :class:`~uncertainty_mtl.LaplaceHead`.

    .. math:: \sqrt2\, e^{-s/2}\, \overline{|f - y|} + \tfrac12 s
              \quad \bigl[ + \tfrac12 \log 2 \text{ if full} \bigr]
    """
    base = absolute_error(prediction, target, mask, num_channels=log_var.numel())
    return scaled_nll(base, log_var, laplace_weight, LAPLACE_CONSTANT if full else 0.0)


def scaled_softmax_nll(
    logits: Tensor,
    target: Tensor,
    log_var: Tensor,
    mask: Tensor | None = None,
    *,
    exact: bool = False,
    ignore_index: int = -100,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    r"""Mean scaled-softmax loss; see :class:`~uncertainty_mtl.ScaledSoftmaxHead`.

    .. math:: e^{-s}\, \overline{\mathrm{CE}(f, y)} + \tfrac12 s, \qquad\text{or, if exact,}\qquad
              \overline{\mathrm{CE}(e^{-s} f, y)}.
    """
    if exact:
        logits = temper(logits, log_var)
    base = cross_entropy(
        logits,
        target,
        mask,
        ignore_index=ignore_index,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
    )
    return base.mean() if exact else scaled_nll(base, log_var, softmax_weight)


def gaussian_weight(log_var: Tensor) -> Tensor:
    r"""Return the factor on the mean squared error, :math:`\tfrac12 e^{-s} = 1/(2\sigma^2)`."""
    return 0.5 * torch.exp(-log_var)


def laplace_weight(log_var: Tensor) -> Tensor:
    r"""Return the factor on the mean absolute error, :math:`\sqrt2 e^{-s/2} = \sqrt2/\sigma`."""
    return math.sqrt(2) * torch.exp(-0.5 * log_var)


def softmax_weight(log_var: Tensor) -> Tensor:
    r"""Return the factor on the mean cross-entropy, :math:`e^{-s} = 1/\sigma^2`."""
    return torch.exp(-log_var)


def temper(logits: Tensor, log_var: Tensor) -> Tensor:
    r"""Return the logits divided by their temperature, :math:`e^{-s} f = f/\sigma^2`."""
    check_floating("prediction", logits)
    logits = _at_least_float32(logits)
    return logits * torch.exp(-log_var.to(logits.dtype))


def scaled_nll(
    base: BaseLoss, log_var: Tensor, weight: Callable[[Tensor], Tensor], constant: float = 0.0
) -> Tensor:
    r"""Return the mean over valid elements of :math:`w(s)\,\text{error} + s/2 + \text{constant}`.

    The form that all three likelihoods share, 0-dim. Exactly 0, with zero gradients, if no element
    is valid: a task without labels must not pull its own scale to the bound.
    """
    # Explicit, as a 0-dim float64 error times a 1-dim float32 weight would be a float32.
    log_var = log_var.to(base.summed.dtype)
    nll = weight(log_var) * base.summed + (0.5 * log_var + constant) * base.num_valid
    return nll.sum() / _at_least_one_element(base.num_valid.sum())


def _summed_error(
    error: Callable[[Tensor], Tensor],
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None,
    num_channels: int,
) -> BaseLoss:
    check_floating("prediction", prediction)
    check_floating("target", target)
    check_same_shape(prediction, target)
    if num_channels > 1:
        check_channels(prediction, num_channels)
    prediction = _at_least_float32(prediction)
    residual = prediction - target.to(prediction.dtype)
    summed_axes = [axis for axis in range(residual.ndim) if num_channels == 1 or axis != 1]
    if mask is None:
        summed = error(residual).sum(summed_axes)
        return BaseLoss(summed, torch.full_like(summed, residual.numel() / num_channels))

    check_mask(mask, prediction.shape, without_channels(prediction))
    if mask.ndim < prediction.ndim:
        mask = mask.unsqueeze(1)
    # Blank before squaring, not after: an invalid target may be nan, and 0 * nan is nan.
    # `where`, not `residual[mask]`: indexing by a mask makes the host wait for the GPU.
    residual = torch.where(mask, residual, 0.0)
    num_valid = mask.expand_as(residual).sum(summed_axes)
    return BaseLoss(error(residual).sum(summed_axes), num_valid.to(residual.dtype))


def _summed_cross_entropy(
    logits: Tensor,
    target: Tensor,
    class_weight: Tensor | None,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    try:
        return F.cross_entropy(
            logits,
            target,
            weight=class_weight,
            ignore_index=ignore_index,
            reduction="sum",
            label_smoothing=label_smoothing,
        )
    except IndexError as error:  # On the CPU only: a CUDA device stops with its own assertion.
        used = target[target != ignore_index]
        raise ValueError(
            f"`target` should hold labels from 0 to {logits.shape[1] - 1}, or `ignore_index = "
            f"{ignore_index}`. Found labels from {used.min()} to {used.max()}. Map other labels "
            "to `ignore_index`, or mask them."
        ) from error


def _at_least_float32(tensor: Tensor) -> Tensor:
    # Half precision has 8 to 11 bits: a mean over a dense map would be wrong in the third digit.
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _at_least_one_element(num_valid: Tensor) -> Tensor:
    # Not `clamp(min=1)`: with class weights the count is a sum that may be a fraction.
    return torch.where(num_valid > 0, num_valid, 1.0)
