r"""Errors and likelihoods as pure functions of tensors.

Throughout, ``log_var`` is :math:`s = \log \sigma^2`, of shape ``(1,)`` or ``()`` for one sigma in
all, or ``(C,)`` for one sigma per channel (axis 1). Half-precision inputs are computed in float32.
The heads hold the parameter and call these functions: an error, and :func:`mean_nll` of it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal

from uncertainty_mtl._checks import (
    check_channels,
    check_floating,
    check_labels,
    check_logit_noise,
    check_mask,
    check_same_shape,
    without_channels,
    wrong_label,
)
from uncertainty_mtl.forms import (
    GAUSSIAN,
    LAPLACE,
    BaseLoss,
    Form,
    PowerForm,
    shares_of,
    weigh,
)

Mask: TypeAlias = Tensor | None
ErrorFunction: TypeAlias = Callable[..., Tensor]


class Noise(NamedTuple):
    """A family of distributions around a prediction.

    Attributes:
        form: How its standard deviation enters the negative log-likelihood.
        error: The error that it scores, a function like :func:`torch.nn.functional.mse_loss`.
        constant: What the form drops of the negative log-likelihood of an element.
        around: Returns the distribution of a given mean and standard deviation.
    """

    form: PowerForm
    error: ErrorFunction
    constant: float
    around: Callable[[Tensor, Tensor], Distribution]


GAUSSIAN_NOISE = Noise(GAUSSIAN, F.mse_loss, 0.5 * math.log(2 * math.pi), Normal)
"""Gaussian noise."""

LAPLACE_NOISE = Noise(
    LAPLACE, F.l1_loss, 0.5 * math.log(2), lambda mean, sigma: Laplace(mean, sigma / math.sqrt(2))
)
"""Laplace noise, whose scale is b = sigma / sqrt(2)."""


def squared_error(
    prediction: Tensor, target: Tensor, mask: Mask = None, *, num_channels: int = 1
) -> BaseLoss:
    """Return the squared error, summed; see :func:`summed_error`."""
    return summed_error(F.mse_loss, prediction, target, mask, num_channels=num_channels)


def absolute_error(
    prediction: Tensor, target: Tensor, mask: Mask = None, *, num_channels: int = 1
) -> BaseLoss:
    """Return the absolute error, summed; see :func:`summed_error`."""
    return summed_error(F.l1_loss, prediction, target, mask, num_channels=num_channels)


def summed_error(
    error: ErrorFunction,
    prediction: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    num_channels: int = 1,
) -> BaseLoss:
    """Return the summed error of a regression and the number of valid elements.

    Both are summed per channel if ``num_channels`` is above 1. Shapes and errors are those of
    :class:`~uncertainty_mtl.GaussianHead`.
    """
    prediction, target, mask = _checked(prediction, target, mask)
    if mask is not None:
        prediction, target = _blanked(mask, prediction, target)
    if num_channels == 1:
        return BaseLoss(error(prediction, target, reduction="sum"), _count(prediction, mask))
    check_channels(prediction, num_channels)
    axes = tuple(axis for axis in range(prediction.ndim) if axis != 1)
    summed = error(prediction, target, reduction="none").sum(axes)
    if mask is None:
        return BaseLoss(summed, _count(prediction, None).expand(num_channels) / num_channels)
    return BaseLoss(summed, mask.expand_as(prediction).sum(axes).to(prediction.dtype))


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    ignore_index: int = -100,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    log_var: Tensor | None = None,
) -> BaseLoss:
    """Return the cross-entropy; shapes, errors: :class:`~uncertainty_mtl.ScaledSoftmaxHead`.

    ``ignore_index``, ``class_weight`` (its ``weight``) and ``label_smoothing`` are those of
    :func:`torch.nn.functional.cross_entropy`. With ``log_var`` it is the cross-entropy of the
    logits divided by the temperature, as :func:`temper` returns them.
    """
    check_floating("prediction", logits)
    target = _checked_labels(logits, target, mask, ignore_index)
    logits = _at_least_float32(logits) if log_var is None else temper(logits, log_var)
    class_weight = None if class_weight is None else class_weight.to(logits.dtype)
    summed = _cross_entropy(
        logits, target, ignore_index, weight=class_weight, label_smoothing=label_smoothing
    )
    valid = target != ignore_index
    if class_weight is None:
        return BaseLoss(summed, torch.count_nonzero(valid).to(logits.dtype))
    weights = torch.where(valid, class_weight[torch.where(valid, target, 0)], 0.0)
    return BaseLoss(summed, weights.sum())


def noise_nll(
    noise: Noise,
    mean: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    full: bool = False,
) -> BaseLoss:
    r"""Return the negative log-likelihood of a noise with a sigma per element, summed.

    See :class:`~uncertainty_mtl.HeteroscedasticGaussianHead`.
    """
    mean, target, mask = _checked(mean, target, mask)
    check_floating("log_var", log_var)
    check_same_shape(mean, log_var, names=("prediction[0]", "prediction[1]"))
    log_var = log_var.to(mean.dtype)
    if mask is not None:
        mean, target, log_var = _blanked(mask, mean, target, log_var)
    error = noise.error(mean, target, reduction="none")
    nll = noise.form.weight(log_var) * error + noise.form.penalty(log_var)
    count = _count(mean, mask)
    return BaseLoss(nll.sum() + (noise.constant * count if full else 0.0), count)


def noisy_softmax_nll(
    logits: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Mask,
    num_samples: int,
    ignore_index: int,
) -> BaseLoss:
    r"""Return :math:`-\log \tfrac1T \sum_t \mathrm{softmax}(f + \sigma \epsilon_t)_y`, summed.

    See :class:`~uncertainty_mtl.HeteroscedasticSoftmaxHead`.
    """
    check_floating("prediction[0]", logits)
    check_floating("prediction[1]", log_var)
    target = _checked_labels(logits, target, mask, ignore_index)
    check_logit_noise(logits, log_var)
    logits = _at_least_float32(logits)
    sigma = torch.exp(0.5 * log_var.to(logits.dtype))
    nll_of_samples = [
        _cross_entropy(logits + sigma * torch.randn_like(logits), target, ignore_index, "none")
        for _ in range(num_samples)
    ]
    valid = target != ignore_index
    nll = math.log(num_samples) - torch.stack(nll_of_samples).neg().logsumexp(0)
    return BaseLoss(torch.where(valid, nll, 0.0).sum(), torch.count_nonzero(valid).to(nll.dtype))


def temper(logits: Tensor, log_var: Tensor) -> Tensor:
    r"""Return the logits divided by their temperature, :math:`e^{-s} f = f/\sigma^2`."""
    check_floating("prediction", logits)
    logits = _at_least_float32(logits)
    return logits * torch.exp(-log_var.to(logits.dtype))


def mean_nll(form: Form, base: BaseLoss, log_var: Tensor, constant: float = 0.0) -> Tensor:
    r"""Return the mean negative log-likelihood, 0-dim; exactly 0 if no element is valid.

    ``mean_nll(GAUSSIAN, squared_error(prediction, target), log_var)``, with ``GAUSSIAN`` of
    :mod:`uncertainty_mtl.forms`, is that of a Gaussian.

    Args:
        form: How the error is weighed.
        base: The error, ``()`` or ``(C,)`` per channel.
        log_var: :math:`s`, shape ``()``, ``(1,)`` or ``(C,)``.
        constant: What is added per valid element, such as ``GAUSSIAN_NOISE.constant``.
    """
    num_valid = torch.as_tensor(base.num_valid, dtype=base.summed.dtype, device=base.summed.device)
    summed, num_valid = base.summed.reshape(-1), num_valid.reshape(-1)
    losses, shares = BaseLoss(summed, num_valid).mean(), shares_of(num_valid)
    return weigh(form.times(shares), losses, log_var.reshape(-1), constant * shares).sum()


def _cross_entropy(
    logits: Tensor, target: Tensor, ignore_index: int, reduction: str = "sum", **options: Any
) -> Tensor:
    try:
        return F.cross_entropy(
            logits, target, ignore_index=ignore_index, reduction=reduction, **options
        )
    except IndexError as error:  # On the CPU only: a CUDA device stops with its own assertion.
        raise wrong_label(logits, target[target != ignore_index], ignore_index) from error


def _blanked(mask: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    # Before they meet: an invalid target may be nan, and 0 * nan is nan. `where`, not
    # `prediction[mask]`: indexing by a mask makes the host wait for the GPU.
    return tuple(torch.where(mask, tensor, 0.0) for tensor in tensors)


def _count(prediction: Tensor, mask: Mask) -> Tensor:
    """Return how many elements are used."""
    if mask is None:
        return prediction.new_full((), prediction.numel())
    # Counted before it is expanded, as a mask may lack the channel axis.
    count = torch.count_nonzero(mask) * (prediction.numel() // max(1, mask.numel()))
    return count.to(prediction.dtype)


def _checked(
    prediction: Tensor, target: Tensor, mask: Mask
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return all three, of at least float32, and the mask with a channel axis."""
    check_floating("prediction", prediction)
    check_floating("target", target)
    check_same_shape(prediction, target)
    prediction = _at_least_float32(prediction)
    target = target.to(prediction.dtype)
    if mask is not None:
        check_mask(mask, prediction.shape, without_channels(prediction))
        if mask.ndim < prediction.ndim:
            mask = mask.unsqueeze(1)
    return prediction, target, mask


def _checked_labels(logits: Tensor, target: Tensor, mask: Mask, ignore_index: int) -> Tensor:
    """Return the labels as int64, with ``ignore_index`` where masked."""
    check_labels(logits, target)
    target = target.long()
    if mask is None:
        return target
    check_mask(mask, target.shape)
    return torch.where(mask, target, ignore_index)


def _at_least_float32(tensor: Tensor) -> Tensor:
    # Half precision has 8 to 11 bits: a mean over a dense map would be wrong in the third digit.
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
