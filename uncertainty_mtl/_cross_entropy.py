"""Cross-entropy summed over a map, with its gradient where nothing is to be recorded."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SUM = 2
"""`reduction="sum"`, as the operators below want it."""


@dataclass  # not frozen: the compiler of torch 2.4 cannot make one
class CrossEntropy:
    """The options of :func:`torch.nn.functional.cross_entropy`, and what it is called for."""

    class_weight: Tensor | None
    ignore_index: int
    label_smoothing: float

    def __call__(self, logits: Tensor, target: Tensor, reduction: str = "sum") -> Tensor:
        """Return the cross-entropy of ``(N, C, *)`` logits, at least float32.

        Raises:
            ValueError: If a label is out of range.
        """
        if reduction == "sum" and is_by_pixel(logits):
            logits, target = by_pixel(logits, target)
        try:
            return F.cross_entropy(
                logits,
                target,
                weight=self.class_weight,
                ignore_index=self.ignore_index,
                reduction=reduction,
                label_smoothing=self.label_smoothing,
            )
        except IndexError as error:  # On the CPU only: a CUDA device stops with its own assertion.
            raise self._wrong_label(logits, target) from error

    def with_gradient(
        self, logits: Tensor, target: Tensor, slope: Tensor, out: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the sum and ``slope`` times its gradient, outside of autograd.

        Args:
            logits: Shape ``(M, C)`` or ``(N, C, H, W)``.
            target: Shape ``(M,)`` or ``(N, H, W)``.
            slope: 0-dim.
            out: Where the gradient may be written.
        """
        if self.label_smoothing:
            leaf = logits.detach().requires_grad_()
            with torch.enable_grad():
                total = self(leaf, target)
            return total.detach(), torch.autograd.grad(total, leaf, slope)[0]
        log_p = torch.log_softmax(logits, 1)
        del logits  # A copy, if the caller has scaled them, which is not needed any more.
        weight, ignore_index = self.class_weight, self.ignore_index
        try:
            total = F.nll_loss(
                log_p, target, weight=weight, ignore_index=ignore_index, reduction="sum"
            )
        except IndexError as error:
            raise self._wrong_label(log_p, target) from error
        # What autograd would call: calling it takes longer than these do on what fits in a cache.
        operators = torch.ops.aten
        nll_backward = (
            operators.nll_loss_backward if log_p.ndim == 2 else operators.nll_loss2d_backward
        )
        # The last is a total weight, of which a sum makes no use.
        of_log_p = nll_backward(slope, log_p, target, weight, SUM, ignore_index, slope)
        softmax_backward = operators._log_softmax_backward_data
        if out is None or out.dtype != log_p.dtype or not out.is_contiguous():
            return total, softmax_backward(of_log_p, log_p, 1, log_p.dtype)
        return total, softmax_backward.out(of_log_p, log_p, 1, log_p.dtype, out=out)

    def _wrong_label(self, logits: Tensor, target: Tensor) -> ValueError:
        used = target[target != self.ignore_index]
        return ValueError(
            f"`target` should hold labels from 0 to {logits.shape[1] - 1}, or `ignore_index = "
            f"{self.ignore_index}`. Found labels from {used.min()} to {used.max()}. Map other "
            "labels to `ignore_index`, or mask them."
        )


def is_by_pixel(logits: Tensor) -> bool:
    """Return whether the classes of a pixel lie side by side, as in ``channels_last``."""
    return logits.movedim(1, -1).is_contiguous() and not logits.is_contiguous()


def by_pixel(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return such logits as ``(M, C)``, and their labels as ``(M,)``.

    Told so, PyTorch reads them as they are; given ``(N, C, *)`` it makes copies in another order,
    in twice the time.
    """
    return logits.movedim(1, -1).flatten(end_dim=-2), target.flatten()
