r"""Errors and likelihoods as pure functions of tensors.

Throughout, ``log_var`` is :math:`s = \log \sigma^2`. It has shape ``(1,)`` or ``()`` for a single
sigma, or ``(C,)`` for one sigma per channel (axis 1). Half-precision inputs are computed in
float32. The heads hold the parameter and call these functions: one for the error, then
:func:`mean_nll`.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import Distribution, Laplace, Normal

from uncertainty_mtl._checks import check_floating, check_logit_noise, check_same_shape, wrong_label
from uncertainty_mtl.chunks import cross_entropy_in_chunks
from uncertainty_mtl.elements import (
    Mask,
    at_least_float32,
    blanked,
    counted,
    counted_labels,
    summed,
    used_elements,
    used_labels,
)
from uncertainty_mtl.forms import GAUSSIAN, LAPLACE, BaseLoss, Form, PowerForm, shares_of, weigh

ErrorFunction: TypeAlias = Callable[..., Tensor]


class Noise(NamedTuple):
    """A family of distributions around a prediction, such as Gaussian or Laplace noise.

    Attributes:
        form: How its standard deviation enters the negative log-likelihood.
        error: The error that it scores, a function like :func:`torch.nn.functional.mse_loss`.
        constant: The constant of an element's negative log-likelihood that the form leaves out.
        around: Returns the distribution with a given mean and standard deviation.
    """

    form: PowerForm
    error: ErrorFunction
    constant: float
    around: Callable[[Tensor, Tensor], Distribution]


GAUSSIAN_NOISE = Noise(GAUSSIAN, F.mse_loss, 0.5 * math.log(2 * math.pi), Normal)
"""Gaussian noise, scored by squared errors.

:meta hide-value:
"""

LAPLACE_NOISE = Noise(
    LAPLACE, F.l1_loss, 0.5 * math.log(2), lambda mean, sigma: Laplace(mean, sigma / math.sqrt(2))
)
"""Laplace noise, scored by absolute errors; its scale is b = sigma / sqrt(2).

:meta hide-value:
"""


def squared_error(
    prediction: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    num_channels: int = 1,
    ignore_nan: bool = False,
) -> BaseLoss:
    """Return the sum of squared errors over valid elements; see :func:`summed_error`."""
    return summed_error(F.mse_loss, prediction, target, mask, num_channels, ignore_nan)


def absolute_error(
    prediction: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    num_channels: int = 1,
    ignore_nan: bool = False,
) -> BaseLoss:
    """Return the sum of absolute errors over valid elements; see :func:`summed_error`."""
    return summed_error(F.l1_loss, prediction, target, mask, num_channels, ignore_nan)


def summed_error(
    error: ErrorFunction,
    prediction: Tensor,
    target: Tensor,
    mask: Mask = None,
    num_channels: int = 1,
    ignore_nan: bool = False,
) -> BaseLoss:
    """Return the sum of a regression's errors, and the number of valid elements.

    Both are per channel if ``num_channels`` is above 1. Shapes and exceptions are those of
    :class:`~uncertainty_mtl.GaussianHead`.

    Args:
        error: :func:`torch.nn.functional.mse_loss`, or a function like it.
        prediction: The prediction.
        target: The target.
        mask: Which elements are used, or the weight of each.
        num_channels: How many channels, on axis 1, have an error of their own.
        ignore_nan: Whether to leave out elements whose target is nan.
    """
    prediction, target, mask = used_elements(prediction, target, mask, num_channels, ignore_nan)
    count = counted(prediction, mask, num_channels)
    if num_channels == 1 and (mask is None or mask.dtype == torch.bool):
        return BaseLoss(error(prediction, target, reduction="sum"), count)
    return BaseLoss(summed(error(prediction, target, reduction="none"), mask, num_channels), count)


def binary_cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    num_channels: int = 1,
    ignore_nan: bool = False,
    pos_weight: Tensor | None = None,
) -> BaseLoss:
    """Return the sum of the binary cross-entropy of logits, and the number of valid elements.

    Shapes and exceptions are those of :class:`~uncertainty_mtl.ScaledSigmoidHead`. ``pos_weight``
    is that of :func:`torch.nn.functional.binary_cross_entropy_with_logits`: one number, or ``(C,)``
    for the channels on axis 1.
    """
    logits, target, mask = used_elements(logits, target, mask, num_channels, ignore_nan)
    if pos_weight is not None:
        # A single weight may come with an axis, as `torch.tensor([9.0])`.
        on_axis_1 = (-1, *[1] * (logits.ndim - 2)) if pos_weight.numel() > 1 else ()
        pos_weight = pos_weight.to(logits.dtype).view(on_axis_1)
    errors = F.binary_cross_entropy_with_logits(
        logits, target, reduction="none", pos_weight=pos_weight
    )
    # An element that was set to 0 has an error of log(2), so the mask has to multiply the errors.
    weight = None if mask is None else mask.to(logits.dtype)
    return BaseLoss(summed(errors, weight, num_channels), counted(logits, mask, num_channels))


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    ignore_index: int = -100,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    log_var: Tensor | None = None,
    low_memory: bool = False,
) -> BaseLoss:
    """Return the sum of the cross-entropy over valid elements, and their total weight.

    Shapes and exceptions are those of :class:`~uncertainty_mtl.ScaledSoftmaxHead`.
    ``ignore_index``, ``class_weight`` (its ``weight``) and ``label_smoothing`` are those of
    :func:`torch.nn.functional.cross_entropy`. With ``log_var`` the logits are first divided by the
    temperature, as by :func:`temper`. With ``low_memory`` the sum is computed by
    :func:`~uncertainty_mtl.chunks.cross_entropy_in_chunks`.
    """
    check_floating("prediction", logits)
    target, weight = used_labels(logits, target, mask, ignore_index)
    if low_memory and weight is not None:
        raise ValueError(
            "A floating `mask` should come without `low_memory`, which has no errors of single "
            "elements to weigh. Found both. Pass a bool mask, or leave out `low_memory`."
        )
    if log_var is not None:
        logits = temper(logits, log_var)
    elif not low_memory:  # the chunks are converted one by one
        logits = at_least_float32(logits)
    if class_weight is not None:
        class_weight = class_weight.to(at_least_float32(logits[:0]).dtype)
    options: dict[str, Any] = {"weight": class_weight, "label_smoothing": label_smoothing}
    if low_memory:
        errors = _named(cross_entropy_in_chunks, logits, target, ignore_index, **options)
    else:
        options["reduction"] = "sum" if weight is None else "none"
        errors = _named(F.cross_entropy, logits, target, ignore_index, **options)
    count = counted_labels(target, ignore_index, weight, class_weight)
    errors = errors if weight is None else summed(errors, weight)
    return BaseLoss(errors, count.to(errors.dtype))


def noise_nll(
    noise: Noise,
    mean: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Mask = None,
    *,
    full: bool = False,
    ignore_nan: bool = False,
    beta: float = 0.0,
    faithful: bool = False,
) -> BaseLoss:
    r"""Return the summed negative log-likelihood for noise with a sigma per element, and the count.

    See :class:`~uncertainty_mtl.HeteroscedasticGaussianHead`.
    """
    mean, target, mask = used_elements(mean, target, mask, ignore_nan=ignore_nan)
    check_floating("log_var", log_var)
    check_same_shape(target, log_var, names=("prediction[0]", "prediction[1]"))
    log_var = log_var.to(mean.dtype)
    if mask is not None:
        log_var = blanked(log_var, mask)
    error = noise.error(mean, target, reduction="none")
    nll = noise.form.weight(log_var) * (error.detach() if faithful else error)
    nll = nll + noise.form.penalty(log_var)
    if full:
        nll = nll + noise.constant
    if beta:
        nll = nll * torch.exp(beta * noise.form.power * log_var.detach())
    if faithful:  # the mean is fitted as if every sigma were 1
        nll = nll + noise.form.weight(torch.zeros_like(log_var)) * error
    weight = None if mask is None else mask.to(nll.dtype)
    return BaseLoss(summed(nll, weight), counted(mean, mask))


def noisy_softmax_nll(
    logits: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Mask,
    num_samples: int,
    ignore_index: int,
) -> BaseLoss:
    r"""Return the summed negative log-likelihood of labels under noisy logits, and their number.

    It estimates :math:`-\log \tfrac1T \sum_t \mathrm{softmax}(f + \sigma \epsilon_t)_y` for each
    element; see :class:`~uncertainty_mtl.HeteroscedasticSoftmaxHead`.
    """
    check_floating("prediction[0]", logits)
    check_floating("prediction[1]", log_var)
    target, weight = used_labels(logits, target, mask, ignore_index)
    check_logit_noise(logits, log_var)
    logits = at_least_float32(logits)
    sigma = torch.exp(0.5 * log_var.to(logits.dtype))
    nll_of_samples = [
        _named(F.cross_entropy, logits + sigma * noise, target, ignore_index, reduction="none")
        for noise in (torch.randn_like(logits) for _ in range(num_samples))
    ]
    nll = math.log(num_samples) - torch.stack(nll_of_samples).neg().logsumexp(0)
    nll = torch.where(target != ignore_index, nll, 0.0)
    count = counted_labels(target, ignore_index, weight, None)
    return BaseLoss(summed(nll, weight), count.to(nll.dtype))


def temper(logits: Tensor, log_var: Tensor) -> Tensor:
    r"""Return the logits divided by their temperature, :math:`e^{-s} f = f/\sigma^2`."""
    check_floating("prediction", logits)
    logits = at_least_float32(logits)
    return logits * torch.exp(-log_var.to(logits.dtype))


def mean_nll(form: Form, base: BaseLoss, log_var: Tensor, constant: float = 0.0) -> Tensor:
    r"""Return the mean negative log-likelihood, 0-dim; exactly 0 if no element is valid.

    Args:
        form: How the error is weighed, such as :data:`uncertainty_mtl.forms.GAUSSIAN`.
        base: The error, ``()`` or ``(C,)`` per channel.
        log_var: :math:`s`, shape ``()``, ``(1,)`` or ``(C,)``.
        constant: A constant to add per valid element, such as ``GAUSSIAN_NOISE.constant``.

    Example:
        >>> error = squared_error(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0]))
        >>> mean_nll(GAUSSIAN, error, torch.tensor(0.0)).item()  # 1/2 MSE at sigma = 1
        0.25
    """
    num_valid = torch.as_tensor(base.num_valid, dtype=base.summed.dtype, device=base.summed.device)
    summed = base.summed.reshape(-1)
    num_valid = num_valid.reshape(-1).expand_as(summed)  # one count may stand for all channels
    losses, shares = BaseLoss(summed, num_valid).mean(), shares_of(num_valid)
    return weigh(form.times(shares), losses, log_var.reshape(-1), constant * shares).sum()


def _named(
    loss: Callable[..., Tensor], logits: Tensor, target: Tensor, ignore_index: int, **options: Any
) -> Tensor:
    """Return ``loss(...)``; if a label is out of range, raise an error that names the labels."""
    try:
        return loss(logits, target, ignore_index=ignore_index, **options)
    except IndexError as error:  # On the CPU only: a CUDA device stops with its own assertion.
        raise wrong_label(logits, target[target != ignore_index], ignore_index) from error
