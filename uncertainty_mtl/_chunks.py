"""Cross-entropy of large maps, a part of the map at a time."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from uncertainty_mtl._cross_entropy import CrossEntropy, by_pixel, is_by_pixel
from uncertainty_mtl._in_place import scale_
from uncertainty_mtl._parts import part_of, parts

CPU_CHUNK, GPU_CHUNK = 2**18, 2**24
"""Elements of a part: on a CPU for each thread, as its core's cache holds some copies of; a GPU
needs work for its kernels."""
SCALED_FROM, PLAIN_FROM = 2**20, 2**21
"""Elements above which parts pay on a CPU: with a factor, or if the classes of a pixel lie side by
side; and, for each thread, otherwise, as they save less there and copy more."""

LEAST = 1e-20
"""Of a factor that a gradient is multiplied by, so that products stay within float32."""


def sum_in_chunks(
    loss: CrossEntropy, logits: Tensor, target: Tensor, factor: Tensor | None, divisor: Tensor
) -> Tensor:
    """Return ``loss(factor * logits, target)``, without copies of the map.

    Written out, the product, the logarithms of probabilities and the gradients of both are each as
    large as the logits. Here they exist for one part of the map at a time, and only the gradient of
    the logits is kept.

    Args:
        loss: Summed over the elements of logits and target.
        logits: Shape ``(N, C, *)``.
        target: Shape ``(N, *)``.
        factor: Shape ``()`` or ``(1,)``, at least float32; None for 1.
        divisor: By which the caller is going to divide, 0-dim. The gradient is made for that, and
            need not be scaled afterwards if it is so.
    """
    if torch.compiler.is_compiling() or not _pays(logits, factor):
        return loss(_scaled(logits, factor), target)
    logits, target = _as_matrix_or_image(logits, target)
    is_recorded = torch.is_grad_enabled()
    wanted = _Wanted(
        logits=is_recorded and logits.requires_grad,
        factor=is_recorded and factor is not None and factor.requires_grad,
    )
    total: Tensor = _SumInChunks.apply(loss, wanted, [], divisor, logits, target, factor)
    return total


def _pays(logits: Tensor, factor: Tensor | None) -> bool:
    if logits.device.type == "cpu":
        saves_much = factor is not None or is_by_pixel(logits)
        return logits.numel() > (
            SCALED_FROM if saves_much else PLAIN_FROM * torch.get_num_threads()
        )
    # A GPU saves memory by parts, but no time.
    return factor is not None and logits.numel() > GPU_CHUNK


def _scaled(logits: Tensor, factor: Tensor | None, out: Tensor | None = None) -> Tensor:
    """Return the product, at least float32; in ``out``, if given and of that type."""
    dtype = torch.promote_types(logits.dtype, torch.float32)
    if factor is None:
        return logits.to(dtype)
    if out is None or out.dtype != dtype:
        return logits.to(dtype) * factor
    return torch.mul(logits, factor, out=out)


class _Wanted(NamedTuple):
    """Which gradients are."""

    logits: bool
    factor: bool


class _SumInChunks(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        loss: CrossEntropy,
        wanted: _Wanted,
        kept: list[Any],
        divisor: Tensor,
        logits: Tensor,
        target: Tensor,
        factor: Tensor | None,
    ) -> Tensor:
        slope = _expected_slope(divisor, logits, factor)
        total, *gradients = _with_gradients(loss, wanted, slope, logits, target, factor)
        if any(wanted):
            kept.append(gradients)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.loss, _, ctx.kept, *tensors = inputs
        ctx.save_for_backward(*tensors)
        ctx.save_for_forward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        divisor, logits, target, factor = ctx.saved_tensors
        wanted = _Wanted(ctx.needs_input_grad[4], ctx.needs_input_grad[6])
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            of_logits, of_factor = _of_whole_map(ctx.loss, wanted, logits, target, factor)
            of_logits = None if of_logits is None else of_logits * upstream
            of_factor = None if of_factor is None else of_factor * upstream
        else:
            # Given away with the first call, as scaling a copy would take the memory of another
            # map; a second call computes it again.
            slope = _expected_slope(divisor, logits, factor)
            of_scaled, of_factor = (
                ctx.kept.pop()
                if ctx.kept
                else _with_gradients(ctx.loss, wanted, slope, logits, target, factor)[1:]
            )
            found = upstream if factor is None else upstream * factor
            of_logits = None if of_scaled is None else scale_(of_scaled, found / slope)
            of_factor = None if of_factor is None else of_factor * (upstream / slope)
        return None, None, None, None, of_logits, None, of_factor

    @staticmethod
    def jvp(
        ctx: Any,
        loss: None,
        wanted: None,
        kept: None,
        of_divisor: None,
        of_logits: Any,
        of_target: None,
        of_factor: Any,
    ) -> Tensor:
        divisor, logits, target, factor = ctx.saved_tensors
        moved = _Wanted(of_logits is not None, of_factor is not None)
        one = torch.ones_like(divisor)
        total, by_scaled, by_factor = _with_gradients(ctx.loss, moved, one, logits, target, factor)
        change = torch.zeros_like(total)
        if by_scaled is not None:
            change = change + (by_scaled * _scaled(of_logits, factor)).sum()
        if by_factor is not None:
            change = change + (by_factor * of_factor).sum()
        return change


def _as_matrix_or_image(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return both as ``(M, C)`` and ``(M,)``, or ``(N, C, H, W)`` and ``(N, H, W)``."""
    if is_by_pixel(logits):
        return by_pixel(logits, target)
    if logits.ndim == 3:
        return logits.unsqueeze(3), target.unsqueeze(2)
    return (logits, target) if logits.ndim == 2 else (logits.flatten(3), target.flatten(2))


def _expected_slope(divisor: Tensor, logits: Tensor, factor: Tensor | None) -> Tensor:
    """Return what the gradient by ``factor * logits`` may be multiplied by from the start, 0-dim.

    For a mean that is all: what is found later, divided by this, is then exactly 1.
    """
    one = torch.ones_like(divisor)
    # Not where the mean is weighted once more, by a sigma that is not known here; nor on a GPU,
    # which would be waited for to see the 1; nor in half precision, in which what a GradScaler is
    # going to lift would vanish first.
    if factor is None or logits.device.type != "cpu" or logits.dtype != divisor.dtype:
        return one
    # The gradient by the factor is divided by this again: 0 would leave nothing of it.
    return one / divisor * factor.reshape(()).clamp(min=LEAST)


def _with_gradients(
    loss: CrossEntropy,
    wanted: _Wanted,
    slope: Tensor,
    logits: Tensor,
    target: Tensor,
    factor: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the sum, and ``slope`` times its gradients, as far as wanted.

    By ``factor * logits`` and by the factor.
    """
    of_scaled = torch.empty_like(logits) if wanted.logits else None
    totals, of_factor = [], []
    is_transformed = _is_transformed(logits, target, factor)
    # A tenth or so at most, or the copies of a part, four, would be as large as the map.
    on_cpu = logits.device.type == "cpu"
    most = CPU_CHUNK * torch.get_num_threads() if on_cpu else GPU_CHUNK
    for where in parts(logits, max(1, min(most, logits.numel() // 11))):
        part, labels = part_of(logits, where), part_of(target.unsqueeze(1), where).squeeze(1)
        if not any(wanted):
            totals.append(loss(_scaled(part, factor), labels))
            continue
        out = None if of_scaled is None else part_of(of_scaled, where)
        if is_transformed:
            gradient, total = torch.func.grad_and_value(loss)(_scaled(part, factor), labels)
            gradient = gradient * slope
        else:
            total, gradient = loss.with_gradient(_scaled(part, factor, out), labels, slope, out)
        totals.append(total)
        if out is not None and gradient is not out:
            out.copy_(gradient)
        if wanted.factor:
            of_factor.append((gradient * part).sum())
    total = torch.stack(totals).sum()
    if factor is None or not of_factor:
        return total, of_scaled, None
    return total, of_scaled, torch.stack(of_factor).sum().reshape(factor.shape)


def _is_transformed(*tensors: Tensor | None) -> bool:
    """Return whether this runs within a transform of `torch.func`, to which not all is known."""
    try:
        for tensor in tensors:
            if tensor is not None and tensor.is_floating_point():
                tensor.detach().requires_grad_()
    except RuntimeError:
        return True
    return False


def _of_whole_map(
    loss: CrossEntropy, wanted: _Wanted, logits: Tensor, target: Tensor, factor: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients by logits and factor, themselves to be derived."""
    arguments = tuple(position for position, is_wanted in enumerate(wanted) if is_wanted)
    gradients = torch.func.grad(lambda x, f: loss(_scaled(x, f), target), arguments)
    found = iter(gradients(logits, factor))
    return (next(found) if wanted.logits else None), (next(found) if wanted.factor else None)
