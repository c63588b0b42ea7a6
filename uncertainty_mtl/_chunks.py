"""Cross-entropy of divided logits, a part of the map at a time."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from uncertainty_mtl._in_place import scale_

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

# What fits into the cache of a CPU core; a GPU needs enough work for each of its kernels.
CPU_CHUNK, GPU_CHUNK = 2**17, 2**24


def sum_in_chunks(loss: Loss, logits: Tensor, target: Tensor, log_var: Tensor) -> Tensor:
    """Return ``loss(logits, target, log_var)``, a sum over elements, without its copies of the map.

    Written out, the divided logits, their logarithms of probabilities and the gradients of both
    are each as large as the logits. Here they exist for one part of the map at a time, and only
    the gradient of the logits is kept.

    Args:
        loss: A sum over the elements of logits and target, 0-dim.
        logits: Shape ``(N, C, *)``.
        target: Shape ``(N, *)``.
        log_var: What all elements share.
    """
    chunk = CPU_CHUNK if logits.device.type == "cpu" else GPU_CHUNK
    if torch.compiler.is_compiling() or logits.numel() <= chunk:
        return loss(logits, target, log_var)
    if logits.ndim == 2:
        logits, target = logits.unsqueeze(2), target.unsqueeze(1)
    is_recorded = torch.is_grad_enabled()
    needed = is_recorded and logits.requires_grad, is_recorded and log_var.requires_grad
    # A copy is saved for the gradient: the next forward writes to the parameter, as it bounds it.
    total: Tensor = _SumInChunks.apply(loss, chunk, needed, [], logits, target, log_var.clone())
    return total


class _SumInChunks(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(
        loss: Loss,
        chunk: int,
        needed: tuple[bool, bool],
        kept: list[Any],
        logits: Tensor,
        target: Tensor,
        log_var: Tensor,
    ) -> Tensor:
        total, *gradients = _with_gradients(loss, chunk, needed, logits, target, log_var)
        if any(needed):
            kept.append(gradients)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.loss, ctx.chunk, _, ctx.kept, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        logits, target, log_var = ctx.saved_tensors
        needed = ctx.needs_input_grad[4], ctx.needs_input_grad[6]
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            total = ctx.loss(logits, target, log_var)
            wanted = [x for x, n in zip((logits, log_var), needed, strict=True) if n]
            found = iter(torch.autograd.grad(total, wanted, upstream, create_graph=True))
            gradients = [next(found) if n else None for n in needed]
        else:
            # Given away with the first call, as scaling a copy would take the memory of another
            # map; a second call computes it again.
            if ctx.kept:
                gradients = ctx.kept.pop()
            else:
                _, *gradients = _with_gradients(
                    ctx.loss, ctx.chunk, needed, logits, target, log_var
                )
            gradients = [None if g is None else scale_(g, upstream) for g in gradients]
        return None, None, None, None, gradients[0], None, gradients[1]


def _with_gradients(
    loss: Loss,
    chunk: int,
    needed: tuple[bool, bool],
    logits: Tensor,
    target: Tensor,
    log_var: Tensor,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the sum, and its gradients as far as they are needed."""
    of_logits = torch.empty_like(logits) if needed[0] else None
    of_log_var = torch.zeros_like(log_var) if needed[1] else None
    totals = []
    for samples, rows in _slices(logits, chunk):
        with torch.set_grad_enabled(any(needed)):
            part = logits[samples, :, rows].detach().requires_grad_(needed[0])
            scale = log_var.detach().requires_grad_(needed[1])
            total = loss(part, target[samples, rows], scale)
        if any(needed):
            torch.autograd.backward(total)
        if of_logits is not None and part.grad is not None:
            of_logits[samples, :, rows] = part.grad
        if of_log_var is not None and scale.grad is not None:
            of_log_var += scale.grad
        totals.append(total.detach())
    return torch.stack(totals).sum(), of_logits, of_log_var


def _slices(logits: Tensor, chunk: int) -> Iterator[tuple[slice, slice]]:
    """Yield the samples and rows of parts of about ``chunk`` elements, at least one row."""
    num_samples, num_rows = logits.shape[0], logits.shape[2]
    per_row = logits.numel() // (num_samples * num_rows)
    rows = min(num_rows, max(1, chunk // per_row))
    samples = max(1, chunk // (per_row * num_rows))
    for first in range(0, num_samples, samples):
        for top in range(0, num_rows, rows):
            yield slice(first, first + samples), slice(top, top + rows)
