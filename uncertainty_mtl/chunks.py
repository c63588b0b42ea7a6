"""Cross-entropy in chunks, for maps whose logits take most of the memory."""

from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from uncertainty_mtl._checks import check_labels

CHUNK = 2**20  # Logits. Larger chunks take more memory; smaller ones take more calls and time.


def cross_entropy_in_chunks(
    logits: Tensor,
    target: Tensor,
    *,
    ignore_index: int = -100,
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the summed :func:`torch.nn.functional.cross_entropy`, with less memory.

    The sum is float32 or float64. The gradient is computed together with the loss and scaled in
    place, so only one backward pass is possible.
    """
    check_labels(logits, target)
    dtype = torch.promote_types(logits.dtype, torch.float32)
    weight = (logits.new_ones(logits.shape[1]) if weight is None else weight).to(dtype)
    options: Any = {"ignore_index": ignore_index, "label_smoothing": label_smoothing}
    if torch.compiler.is_compiling():  # The compiler fuses this, but would unroll the chunks.
        return F.cross_entropy(logits.to(dtype), target, weight, reduction="sum", **options)
    logits = logits if torch.is_grad_enabled() else logits.detach()
    logits, target = logits.unsqueeze(-1).flatten(2), target.unsqueeze(-1).flatten(1)  # (N, C, P)
    return _InChunks.apply(logits, target, weight, options)  # type: ignore[no-any-return]


class _InChunks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, weight: Tensor, options: Any) -> Tensor:
        gradient = torch.empty_like(logits) if ctx.needs_input_grad[0] else None
        ignored, smoothing = options["ignore_index"], options["label_smoothing"]
        loss, soft = weight.new_zeros(()), smoothing / len(weight) * weight.unsqueeze(1)
        for chunk in _chunks(logits):
            log_p, labels = F.log_softmax(logits[chunk], 1, dtype=weight.dtype), target[chunk[::2]]
            nll = F.nll_loss(log_p, labels, weight, ignore_index=ignored, reduction="sum")
            loss += (1 - smoothing) * nll
            used = (labels != ignored).unsqueeze(1)
            if smoothing:
                loss -= torch.where(used, (soft * log_p).sum(1, keepdim=True), 0).sum()
            if gradient is not None:
                labels = torch.where(used, labels.unsqueeze(1), 0)
                hard = (1 - smoothing) * weight[labels] * used
                slope = log_p.exp_().mul_(hard + soft.sum() * used).scatter_add_(1, labels, -hard)
                gradient[chunk] = slope.sub_(soft * used) if smoothing else slope
        ctx.save_for_backward(gradient)
        ctx.is_scaled = False
        return loss

    @staticmethod
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        # If the scale required no gradient, a second derivative would silently be 0.
        return _scaled(ctx, scale.clone().requires_grad_() if torch.is_grad_enabled() else scale)


@torch.autograd.function.once_differentiable
def _scaled(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
    if ctx.is_scaled:  # Autograd's own check does not cover tensors that a hook has saved.
        raise RuntimeError("Cross-entropy in chunks allows one backward pass. Recompute the loss.")
    (gradient,), ctx.is_scaled = ctx.saved_tensors, True
    for chunk in _chunks(gradient):
        gradient[chunk].mul_(scale.view(1))  # A GPU would round a 0-dim scale to half precision.
    return gradient, None, None, None


def _chunks(logits: Tensor) -> list[tuple[slice, ...]]:
    positions = max(1, CHUNK // logits.shape[1])
    images = max(1, positions // max(1, logits.shape[2]))
    starts = product(range(0, logits.shape[0], images), range(0, logits.shape[2], positions))
    return [(slice(i, i + images), slice(None), slice(j, j + positions)) for i, j in starts]
