"""Cross-entropy of divided logits, a part of the map at a time."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

Loss: TypeAlias = Callable[[Tensor, Tensor, Tensor], Tensor]

# What fits into the cache of a CPU core; a GPU needs enough work for each of its kernels.
CPU_CHUNK, GPU_CHUNK = 2**17, 2**24


def sum_in_chunks(loss: Loss, logits: Tensor, target: Tensor, log_var: Tensor) -> Tensor:
    """Return ``loss(logits, target, log_var)``, a sum over elements, without its copies of the map.

    Written out, the divided logits, their logarithms of probabilities and the gradients of both
    are each as large as the logits. Here they exist for one part of the map at a time, computed
    again for the gradient.

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
    # A copy is saved for the gradient: the next forward writes to the parameter, as it bounds it.
    total: Tensor = _SumInChunks.apply(loss, chunk, logits, target, log_var.clone())
    return total


class _SumInChunks(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(loss: Loss, chunk: int, logits: Tensor, target: Tensor, log_var: Tensor) -> Tensor:
        parts = [
            loss(logits[samples, :, rows], target[samples, rows], log_var)
            for samples, rows in _slices(logits, chunk)
        ]
        return torch.stack(parts).sum()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.loss, ctx.chunk, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        logits, target, log_var = ctx.saved_tensors
        needed = ctx.needs_input_grad[2], ctx.needs_input_grad[4]
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            total = ctx.loss(logits, target, log_var)
            of_logits, of_log_var = _gradients(total, (logits, log_var), needed, upstream)
            return None, None, of_logits, None, of_log_var
        of_logits = torch.empty_like(logits) if needed[0] else None
        of_log_var = torch.zeros_like(log_var) if needed[1] else None
        for samples, rows in _slices(logits, ctx.chunk):
            with torch.enable_grad():
                part = logits[samples, :, rows].detach().requires_grad_(needed[0])
                scale = log_var.detach().requires_grad_(needed[1])
                summed = ctx.loss(part, target[samples, rows], scale)
            of_part, of_scale = _gradients(summed, (part, scale), needed, upstream)
            if of_logits is not None and of_part is not None:
                of_logits[samples, :, rows] = of_part
            if of_log_var is not None and of_scale is not None:
                of_log_var += of_scale
        return None, None, of_logits, None, of_log_var


def _slices(logits: Tensor, chunk: int) -> Iterator[tuple[slice, slice]]:
    """Yield the samples and rows of parts of about ``chunk`` elements, at least one row."""
    num_samples, num_rows = logits.shape[0], logits.shape[2]
    per_row = logits.numel() // (num_samples * num_rows)
    rows = min(num_rows, max(1, chunk // per_row))
    samples = max(1, chunk // (per_row * num_rows))
    for first in range(0, num_samples, samples):
        for top in range(0, num_rows, rows):
            yield slice(first, first + samples), slice(top, top + rows)


def _gradients(
    total: Tensor, inputs: Sequence[Tensor], needed: Sequence[bool], upstream: Tensor
) -> Iterator[Tensor | None]:
    wanted = [tensor for tensor, is_needed in zip(inputs, needed, strict=True) if is_needed]
    found = iter(torch.autograd.grad(total, wanted, upstream, create_graph=torch.is_grad_enabled()))
    return (next(found) if is_needed else None for is_needed in needed)
