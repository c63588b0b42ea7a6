"""Sums of absolute and squared errors over dense maps, with no map in memory but the gradient."""

from typing import Any, TypeAlias

import torch
from torch import Tensor

from uncertainty_mtl._in_place import scale_

Axes: TypeAlias = tuple[int, ...] | None

SMALL = 2**16
"""Elements of which copies cost less than what saves them."""


def summed_error(
    power: int, prediction: Tensor, target: Tensor, mask: Tensor | None, axes: Axes
) -> Tensor:
    r"""Return the sum of :math:`|f - y|^p` over ``axes`` (None: all), where the mask is True.

    Written out, the residual and its absolute value or square, and on the way back their
    gradients, are each as large as the prediction. Here every step writes over the one before, and
    the residual is computed again for the gradient: on a CPU most of the time of such a sum goes
    into memory that is new.

    Args:
        power: 1 or 2.
        prediction: At least float32.
        target: Same shape and dtype.
        mask: A shape that broadcasts to theirs.
        axes: What is summed over.
    """
    # A compiler does the same by itself, and a few elements are not worth a function of our own.
    if torch.compiler.is_compiling() or prediction.numel() <= SMALL:
        residual = masked_residual(prediction, target, mask)
        return (residual.abs() if power == 1 else residual.square()).sum(axes)
    total: Tensor = _SummedError.apply(power, axes, prediction, target, mask)
    return total


def masked_residual(prediction: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    """Return the residual, 0 where masked."""
    residual = prediction - target
    if mask is None:
        return residual
    # Blank before squaring, not after: an invalid target may be nan, and 0 * nan is nan.
    # Filled, not `residual[mask]`: indexing by a mask makes the host wait for the GPU.
    return residual.masked_fill_(~mask, 0.0)


class _SummedError(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        power: int, axes: Axes, prediction: Tensor, target: Tensor, mask: Tensor | None
    ) -> Tensor:
        residual = masked_residual(prediction, target, mask)
        # Not `vector_norm`, faster as it is: it loses three more digits over a large map.
        return (residual.abs_() if power == 1 else residual.mul_(residual)).sum(axes)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.power, ctx.axes, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        prediction, target, mask = ctx.saved_tensors
        upstream = _spread(upstream, prediction, ctx.axes)
        residual = masked_residual(prediction, target, mask)
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            gradient = upstream * (residual.sign() if ctx.power == 1 else 2 * residual)
        elif ctx.power == 1:
            gradient = scale_(residual.sign_(), upstream)
        else:
            gradient = scale_(residual, 2 * upstream)
        of_target = -gradient if ctx.needs_input_grad[3] else None
        return None, None, gradient, of_target, None

    @staticmethod
    def jvp(
        ctx: Any, power: None, axes: None, of_prediction: Any, of_target: Any, mask: None
    ) -> Tensor:
        residual = masked_residual(*ctx.saved_tensors)
        slope = residual.sign() if ctx.power == 1 else 2 * residual
        change = torch.zeros_like(residual)
        if of_prediction is not None:
            change = change + of_prediction
        if of_target is not None:
            change = change - of_target
        return (slope * change).sum(ctx.axes)


def _spread(value: Tensor, like: Tensor, axes: Axes) -> Tensor:
    """Return a sum's gradient, ``()`` or ``(C,)``, in a shape that broadcasts to the map's."""
    return value if axes is None else value.view(-1, *[1] * (like.ndim - 2))
