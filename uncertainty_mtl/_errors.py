"""Sums of absolute and squared errors over dense maps, with no map in memory but the gradient."""

from typing import Any, TypeAlias

import torch
from torch import Tensor

from uncertainty_mtl._in_place import scale_
from uncertainty_mtl._parts import part_of, parts

Axes: TypeAlias = tuple[int, ...] | None

SMALL = 2**13
"""Elements of which copies cost less than what saves them."""
CPU_PART, GPU_PART = 2**17, 2**24
"""Elements of a part: on a CPU for each thread, as its core's cache holds some copies of; a GPU
needs work for its kernels."""
BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


def summed_error(
    power: int, prediction: Tensor, target: Tensor, mask: Tensor | None, axes: Axes
) -> Tensor:
    r"""Return the sum of :math:`|f - y|^p` over ``axes`` (None: all), where the mask is True.

    Written out, the residual and its absolute value or square, and on the way back their
    gradients, are each as large as the prediction, and on a CPU most of the time of such a sum goes
    into memory that is new. Here they exist for one part of the map at a time, and only the
    gradient is kept.

    Args:
        power: 1 or 2.
        prediction: At least float32.
        target: Same shape and dtype.
        mask: A shape that broadcasts to theirs.
        axes: What is summed over: all but axis 1, or None.
    """
    # A compiler does the same by itself, and a few elements are not worth a function of our own.
    if torch.compiler.is_compiling() or prediction.numel() <= SMALL:
        residual = masked_residual(prediction, target, mask)
        return (residual.abs() if power == 1 else residual.square()).sum(axes)
    is_wanted = torch.is_grad_enabled() and (prediction.requires_grad or target.requires_grad)
    total: Tensor = _SummedError.apply(power, axes, is_wanted, [], prediction, target, mask)
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
        power: int,
        axes: Axes,
        is_wanted: bool,
        kept: list[Tensor],
        prediction: Tensor,
        target: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        slope = torch.empty_like(prediction) if is_wanted else None
        total = _sum_in_parts(power, axes, slope, prediction, target, mask)
        if slope is not None:
            kept.append(slope)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.power, ctx.axes, _, ctx.kept, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        prediction, target, mask = ctx.saved_tensors
        upstream = _spread(upstream, prediction, ctx.axes)
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            gradient = upstream * _slope(ctx.power, masked_residual(prediction, target, mask))
        else:
            # Given away with the first call, as scaling a copy would take the memory of another
            # map; a second call computes it again.
            if ctx.kept:
                slope = ctx.kept.pop()
            else:
                slope = torch.empty_like(prediction)
                _sum_in_parts(ctx.power, ctx.axes, slope, prediction, target, mask)
            gradient = scale_(slope, upstream if ctx.power == 1 else 2 * upstream)
        of_target = -gradient if ctx.needs_input_grad[5] else None
        return None, None, None, None, gradient, of_target, None

    @staticmethod
    def jvp(
        ctx: Any,
        power: None,
        axes: None,
        is_wanted: None,
        kept: None,
        of_prediction: Any,
        of_target: Any,
        mask: None,
    ) -> Tensor:
        slope = _slope(ctx.power, masked_residual(*ctx.saved_tensors))
        change = torch.zeros_like(slope)
        if of_prediction is not None:
            change = change + of_prediction
        if of_target is not None:
            change = change - of_target
        return (slope * change).sum(ctx.axes)


def _sum_in_parts(
    power: int,
    axes: Axes,
    slope: Tensor | None,
    prediction: Tensor,
    target: Tensor,
    mask: Tensor | None,
) -> Tensor:
    """Return the sum; write the sign of the residual (power 1) or itself (2) to ``slope``."""
    sums = []
    for part in parts(prediction, _part_size(prediction)):
        residual = part_of(prediction, part) - part_of(target, part)
        if mask is not None:
            residual = _blanked(residual, part_of(mask, part))
        if slope is not None:
            part_of(slope, part).copy_(residual.sign() if power == 1 else residual)
        # Not `vector_norm`, faster as it is: it loses three more digits over a large map.
        sums.append((residual.abs_() if power == 1 else residual.mul_(residual)).sum(axes))
    return torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]


def _part_size(prediction: Tensor) -> int:
    if prediction.device.type != "cpu":
        return GPU_PART
    # A sixteenth, or the copies of a part would be as large as the map; but half a thread's worth.
    most = min(CPU_PART * torch.get_num_threads(), prediction.numel() // 16)
    return max(CPU_PART // 2, most)


def _blanked(residual: Tensor, mask: Tensor) -> Tensor:
    """Return the residual, 0 where masked, nine times as fast as a selection on a CPU.

    A float times 0 may be nan. Its bits, read as an integer, times 0 are those of 0.
    """
    try:
        return (residual.view(BITS[residual.dtype]) * mask).view(residual.dtype)
    except RuntimeError:  # torch 2.4 has no such view under vmap.
        return residual.masked_fill(~mask, 0.0)


def _slope(power: int, residual: Tensor) -> Tensor:
    """Return the derivative of the error by the residual."""
    return residual.sign() if power == 1 else 2 * residual


def _spread(value: Tensor, like: Tensor, axes: Axes) -> Tensor:
    """Return a sum's gradient, ``()`` or ``(C,)``, in a shape that broadcasts to the map's."""
    return value if axes is None else value.view(-1, *[1] * (like.ndim - 2))
