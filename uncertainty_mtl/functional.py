r"""The likelihood formulas as pure functions of tensors, one to a line, with no state.

Throughout, ``log_var`` is :math:`s = \log \sigma^2`, of shape ``(1,)`` or ``()`` for one scale in
all, or ``(C,)`` for one scale per channel (axis 1). Half-precision inputs are computed in float32.
The heads in :mod:`uncertainty_mtl.heads` hold the parameter and call these.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from uncertainty_mtl._checks import (
    check_channels,
    check_floating,
    check_labels,
    check_logit_noise,
    check_mask,
    check_same_shape,
    without_channels,
)
from uncertainty_mtl._chunks import sum_in_chunks
from uncertainty_mtl._cross_entropy import CrossEntropy
from uncertainty_mtl._errors import masked_residual, summed_error
from uncertainty_mtl.forms import (
    GAUSSIAN,
    LAPLACE,
    SOFTMAX,
    BaseLoss,
    PowerForm,
    at_least_one_element,
)

GAUSSIAN_CONSTANT = 0.5 * math.log(2 * math.pi)
"""What the Gaussian negative log-likelihood drops unless ``full=True``."""

LAPLACE_CONSTANT = 0.5 * math.log(2)
"""What the Laplace negative log-likelihood drops unless ``full=True``."""


def squared_error(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, *, num_channels: int = 1
) -> BaseLoss:
    """Return the squared error, summed per channel if ``num_channels`` is above 1.

    Shapes and errors as in :class:`~uncertainty_mtl.GaussianHead`.
    """
    return _summed_error(2, prediction, target, mask, num_channels)


def absolute_error(
    prediction: Tensor, target: Tensor, mask: Tensor | None = None, *, num_channels: int = 1
) -> BaseLoss:
    """Return the absolute error, summed per channel if ``num_channels`` is above 1.

    Shapes and errors as in :class:`~uncertainty_mtl.LaplaceHead`.
    """
    return _summed_error(1, prediction, target, mask, num_channels)


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    ignore_index: int = -100,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    log_var: Tensor | None = None,
) -> BaseLoss:
    """Return the cross-entropy; shapes, errors: :class:`~uncertainty_mtl.ScaledSoftmaxHead`.

    ``ignore_index``, ``class_weight`` (its ``weight``) and ``label_smoothing`` are those of
    :func:`torch.nn.functional.cross_entropy`. With ``log_var`` it is that of the logits divided by
    the temperature, as :func:`temper` returns them.
    """
    check_floating("prediction", logits)
    check_labels(logits, target)
    dtype, target = torch.promote_types(logits.dtype, torch.float32), target.long()
    if mask is not None:
        check_mask(mask, target.shape)
        target = torch.where(mask, target, ignore_index)
    valid = target != ignore_index
    if class_weight is None:
        num_valid = torch.count_nonzero(valid).to(dtype)
    else:
        class_weight = class_weight.to(dtype)
        num_valid = torch.where(valid, class_weight[torch.where(valid, target, 0)], 0.0).sum()

    loss = CrossEntropy(class_weight, ignore_index, label_smoothing)
    inverse_temperature = None if log_var is None else torch.exp(-log_var.to(dtype))
    divisor = at_least_one_element(num_valid)
    summed = sum_in_chunks(loss, logits, target, inverse_temperature, divisor)
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
    return GAUSSIAN.term(base, log_var, GAUSSIAN_CONSTANT if full else 0.0)


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
    return LAPLACE.term(base, log_var, LAPLACE_CONSTANT if full else 0.0)


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
    base = cross_entropy(
        logits,
        target,
        mask,
        ignore_index=ignore_index,
        class_weight=class_weight,
        label_smoothing=label_smoothing,
        log_var=log_var if exact else None,
    )
    return base.mean() if exact else SOFTMAX.term(base, log_var)


def heteroscedastic_gaussian_nll(
    mean: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    full: bool = False,
) -> Tensor:
    r"""Mean of :math:`\tfrac12 e^{-s_i} (f_i - y_i)^2 + \tfrac12 s_i`, with a scale per element.

    See :class:`~uncertainty_mtl.HeteroscedasticGaussianHead`.
    """
    return summed_noise_nll(GAUSSIAN, torch.square, mean, log_var, target, mask, full).mean()


def heteroscedastic_laplace_nll(
    mean: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    full: bool = False,
) -> Tensor:
    r"""Mean of :math:`\sqrt2 e^{-s_i/2} |f_i - y_i| + \tfrac12 s_i`, with a scale per element.

    See :class:`~uncertainty_mtl.HeteroscedasticLaplaceHead`.
    """
    return summed_noise_nll(LAPLACE, torch.abs, mean, log_var, target, mask, full).mean()


def summed_noise_nll(
    form: PowerForm,
    error: Callable[[Tensor], Tensor],
    mean: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Tensor | None,
    full: bool,
) -> BaseLoss:
    """Return the regression likelihood with a scale per element, summed, and its count."""
    mean, target, mask = _checked(mean, target, mask)
    residual = masked_residual(mean, target, mask)
    check_floating("log_var", log_var)
    check_same_shape(mean, log_var, names=("prediction[0]", "prediction[1]"))
    log_var = log_var.to(residual.dtype)
    constant = (GAUSSIAN_CONSTANT if form is GAUSSIAN else LAPLACE_CONSTANT) if full else 0.0
    nll = form.weight(log_var) * error(residual) + form.penalty(log_var) + constant
    if mask is None:
        return BaseLoss(nll.sum(), torch.full_like(nll.sum(), nll.numel()))
    nll = torch.where(mask, nll, 0.0)
    return BaseLoss(nll.sum(), mask.expand_as(nll).sum().to(nll.dtype))


def noisy_softmax_nll(
    logits: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    *,
    num_samples: int = 10,
    ignore_index: int = -100,
) -> Tensor:
    r"""Mean of :math:`-\log \tfrac1T \sum_t \mathrm{softmax}(f + \sigma \epsilon_t)_y`.

    See :class:`~uncertainty_mtl.HeteroscedasticSoftmaxHead`.
    """
    return summed_noisy_softmax_nll(logits, log_var, target, mask, num_samples, ignore_index).mean()


def summed_noisy_softmax_nll(
    logits: Tensor,
    log_var: Tensor,
    target: Tensor,
    mask: Tensor | None,
    num_samples: int,
    ignore_index: int,
) -> BaseLoss:
    """Return the classification likelihood under noise on the logits, summed, and its count."""
    check_floating("prediction[0]", logits)
    check_floating("prediction[1]", log_var)
    check_labels(logits, target)
    check_logit_noise(logits, log_var)
    logits, target = _at_least_float32(logits), target.long()
    if mask is not None:
        check_mask(mask, target.shape)
        target = torch.where(mask, target, ignore_index)
    sigma = torch.exp(0.5 * log_var.to(logits.dtype))
    loss = CrossEntropy(None, ignore_index, label_smoothing=0.0)
    log_likelihoods = [
        -loss(logits + sigma * torch.randn_like(logits), target, "none") for _ in range(num_samples)
    ]
    valid = target != ignore_index
    nll = math.log(num_samples) - torch.stack(log_likelihoods).logsumexp(0)
    return BaseLoss(torch.where(valid, nll, 0.0).sum(), valid.sum().to(nll.dtype))


def temper(logits: Tensor, log_var: Tensor) -> Tensor:
    r"""Return the logits divided by their temperature, :math:`e^{-s} f = f/\sigma^2`."""
    check_floating("prediction", logits)
    logits = _at_least_float32(logits)
    return logits * torch.exp(-log_var.to(logits.dtype))


def _summed_error(
    power: int, prediction: Tensor, target: Tensor, mask: Tensor | None, num_channels: int
) -> BaseLoss:
    prediction, target, mask = _checked(prediction, target, mask)
    axes = None
    if num_channels > 1:
        check_channels(prediction, num_channels)
        axes = tuple(axis for axis in range(prediction.ndim) if axis != 1)
    # Before the sum, which keeps its gradient: the count takes memory too, for a moment.
    num_valid = _num_valid(prediction, mask, num_channels, axes)
    return BaseLoss(summed_error(power, prediction, target, mask, axes), num_valid)


def _num_valid(
    prediction: Tensor, mask: Tensor | None, num_channels: int, axes: tuple[int, ...] | None
) -> Tensor:
    """Return how many elements are used, of each channel if there are ``axes``."""
    if mask is None:
        shape = () if axes is None else (num_channels,)
        return prediction.new_full(shape, prediction.numel() / num_channels)
    if axes is not None:
        # Half the memory of the default, int64.
        count = mask.expand_as(prediction).sum(axes, dtype=torch.int32)
    else:
        # The sum of a bool tensor is many times as slow, and so is expanding it.
        count = torch.count_nonzero(mask) * (prediction.numel() // max(1, mask.numel()))
    return count.to(prediction.dtype)


def _checked(
    prediction: Tensor, target: Tensor, mask: Tensor | None
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


def _at_least_float32(tensor: Tensor) -> Tensor:
    # Half precision has 8 to 11 bits: a mean over a dense map would be wrong in the third digit.
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor
