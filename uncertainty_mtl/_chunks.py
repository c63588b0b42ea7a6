"""Cross-entropy of large maps, a part of the map at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from uncertainty_mtl._in_place import scale_
from uncertainty_mtl._parts import parts

Loss: TypeAlias = Callable[[Tensor, Tensor], Tensor]

CPU_CHUNK, GPU_CHUNK = 2**19, 2**24
"""Elements of a part: what fits into the cache of a CPU; a GPU needs work for its kernels."""
SCALED_FROM, PLAIN_FROM = 2**21, 2**23
"""Elements above which parts pay on a CPU: the copies no longer fit into its cache or, without a
factor, are so large that the allocator takes new memory for each of them."""


def sum_in_chunks(loss: Loss, logits: Tensor, target: Tensor, factor: Tensor | None) -> Tensor:
    """Return ``loss(factor * logits, target)``, a sum over elements, without copies of the map.

    Written out, the product, the logarithms of probabilities and the gradients of both are each as
    large as the logits. Here they exist for one part of the map at a time, and only the gradient of
    the logits is kept.

    Args:
        loss: A sum over the elements of logits and target, 0-dim.
        logits: Shape ``(N, C, *)``.
        target: Shape ``(N, *)``.
        factor: Shape ``()`` or ``(1,)``, of the dtype to compute in; None for 1.
    """
    if torch.compiler.is_compiling() or not _pays(logits, factor):
        return loss(_scaled(logits, factor), target)
    if logits.ndim == 2:
        logits, target = logits.unsqueeze(2), target.unsqueeze(1)
    is_recorded = torch.is_grad_enabled()
    wanted = _Wanted(
        logits=is_recorded and logits.requires_grad,
        factor=is_recorded and factor is not None and factor.requires_grad,
    )
    total: Tensor = _SumInChunks.apply(loss, wanted, [], logits, target, factor)
    return total


def _pays(logits: Tensor, factor: Tensor | None) -> bool:
    if logits.device.type == "cpu":
        return logits.numel() > (PLAIN_FROM if factor is None else SCALED_FROM)
    # A GPU saves memory by parts, but no time.
    return factor is not None and logits.numel() > GPU_CHUNK


def _scaled(logits: Tensor, factor: Tensor | None) -> Tensor:
    return logits if factor is None else logits.to(factor.dtype) * factor


class _Wanted(NamedTuple):
    """Which gradients are."""

    logits: bool
    factor: bool


class _SumInChunks(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        loss: Loss,
        wanted: _Wanted,
        kept: list[Any],
        logits: Tensor,
        target: Tensor,
        factor: Tensor | None,
    ) -> Tensor:
        total, *gradients = _with_gradients(loss, wanted, logits, target, factor)
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
        logits, target, factor = ctx.saved_tensors
        wanted = _Wanted(ctx.needs_input_grad[3], ctx.needs_input_grad[5])
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            of_logits, of_factor = _of_whole_map(ctx.loss, wanted, logits, target, factor)
            of_logits = None if of_logits is None else of_logits * upstream
        else:
            # Given away with the first call, as scaling a copy would take the memory of another
            # map; a second call computes it again.
            of_scaled, of_factor = (
                ctx.kept.pop()
                if ctx.kept
                else _with_gradients(ctx.loss, wanted, logits, target, factor)[1:]
            )
            slope = upstream if factor is None else upstream * factor
            of_logits = None if of_scaled is None else scale_(of_scaled, slope)
        of_factor = None if of_factor is None else of_factor * upstream
        return None, None, None, of_logits, None, of_factor

    @staticmethod
    def jvp(
        ctx: Any,
        loss: None,
        wanted: None,
        kept: None,
        of_logits: Any,
        of_target: None,
        of_factor: Any,
    ) -> Tensor:
        logits, target, factor = ctx.saved_tensors
        moved = _Wanted(of_logits is not None, of_factor is not None)
        total, by_scaled, by_factor = _with_gradients(ctx.loss, moved, logits, target, factor)
        change = torch.zeros_like(total)
        if by_scaled is not None:
            change = change + (by_scaled * _scaled(of_logits, factor)).sum()
        if by_factor is not None:
            change = change + (by_factor * of_factor).sum()
        return change


def _with_gradients(
    loss: Loss, wanted: _Wanted, logits: Tensor, target: Tensor, factor: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the sum, its gradient by ``factor * logits``, and by the factor, as far as wanted."""
    of_scaled = torch.empty_like(logits) if wanted.logits else None
    totals, of_factor = [], []
    # A sixteenth at most, or the copies of a part would be as large as the map.
    most = CPU_CHUNK if logits.device.type == "cpu" else GPU_CHUNK
    for samples, rows in parts(logits, max(1, min(most, logits.numel() // 16))):
        part, labels = logits[samples, :, rows], target[samples, rows]
        scaled = _scaled(part, factor)
        if not any(wanted):
            totals.append(loss(scaled, labels))
            continue
        total, gradient = _value_and_gradient(loss, scaled, labels)
        totals.append(total)
        if of_scaled is not None:
            of_scaled[samples, :, rows] = gradient
        if wanted.factor:
            of_factor.append(gradient.mul_(part).sum())
    total = torch.stack(totals).sum()
    if factor is None or not of_factor:
        return total, of_scaled, None
    return total, of_scaled, torch.stack(of_factor).sum().reshape(factor.shape)


def _value_and_gradient(loss: Loss, scaled: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    try:
        leaf = scaled.detach().requires_grad_()
    except RuntimeError:  # Within a transform of `torch.func`, which has a slower way of its own.
        gradient, total = torch.func.grad_and_value(loss)(scaled, labels)
        return total, gradient
    with torch.enable_grad():
        total = loss(leaf, labels)
    (gradient,) = torch.autograd.grad(total, leaf)
    return total.detach(), gradient


def _of_whole_map(
    loss: Loss, wanted: _Wanted, logits: Tensor, target: Tensor, factor: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """Return the gradients by logits and factor, themselves to be derived."""
    arguments = tuple(position for position, is_wanted in enumerate(wanted) if is_wanted)
    gradients = torch.func.grad(lambda x, f: loss(_scaled(x, f), target), arguments)
    found = iter(gradients(logits, factor))
    return (next(found) if wanted.logits else None), (next(found) if wanted.factor else None)
