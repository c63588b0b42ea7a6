"""Applies masks, weights per element and labels to ignore.

Elements that a mask leaves out may be nan or infinite. They are set to 0 before anything is
computed from them, because ``0 * nan`` is nan. The functions use :func:`torch.where` for this,
because indexing with the mask would make the host wait for a GPU.
"""

from typing import TypeAlias

import torch
from torch import Tensor

from uncertainty_mtl._checks import (
    check_channels,
    check_floating,
    check_labels,
    check_mask,
    check_same_shape,
    without_channels,
)

Mask: TypeAlias = Tensor | None
"""Bool, True where the target is used; or floating, the weight of each element; or None."""


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return half precision as float32, as its 8 to 11 bits are too few for a mean over a map."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def used_elements(
    prediction: Tensor, target: Tensor, mask: Mask, num_channels: int = 1, ignore_nan: bool = False
) -> tuple[Tensor, Tensor, Mask]:
    """Return prediction and target in at least float32, 0 where masked out, and the full mask.

    The mask gets a channel axis if it lacks one. With ``ignore_nan`` it leaves out nan targets.
    """
    check_floating("prediction", prediction)
    check_floating("target", target)
    check_same_shape(prediction, target)
    if num_channels > 1:
        check_channels(prediction, num_channels)
    prediction = at_least_float32(prediction)
    target = target.to(prediction.dtype)
    if mask is not None:
        check_mask(mask, prediction.shape, without_channels(prediction))
        if mask.ndim < prediction.ndim:
            mask = mask.unsqueeze(1)
        if mask.dtype != torch.bool:
            mask = mask.to(prediction.dtype)
    if ignore_nan:
        is_there = ~target.isnan()
        mask = is_there if mask is None else mask * is_there
    if mask is None:
        return prediction, target, None
    return blanked(prediction, mask), blanked(target, mask), mask


def blanked(tensor: Tensor, mask: Tensor) -> Tensor:
    """Return the tensor with 0 wherever the mask is False or 0."""
    return torch.where(mask if mask.dtype == torch.bool else mask != 0, tensor, 0.0)


def summed(errors: Tensor, mask: Mask, num_channels: int = 1) -> Tensor:
    """Return the sum of errors, weighted by a floating mask; 0-dim or per channel."""
    if mask is not None and mask.dtype != torch.bool:
        errors = errors * mask
    return errors.sum() if num_channels == 1 else errors.sum(_all_but_channels(errors))


def counted(prediction: Tensor, mask: Mask, num_channels: int = 1) -> Tensor:
    """Return how many elements are used, or the sum of their weights; 0-dim or per channel."""
    if mask is None:
        shape = () if num_channels == 1 else (num_channels,)
        return prediction.new_full(shape, prediction.numel() / num_channels)
    if num_channels > 1:
        count = mask.expand_as(prediction).sum(_all_but_channels(prediction))
    else:
        # Count first and multiply, because a mask may lack the channel axis.
        count = torch.count_nonzero(mask) if mask.dtype == torch.bool else mask.sum()
        count = count * (prediction.numel() // max(1, mask.numel()))
    return count.to(prediction.dtype)


def used_labels(
    logits: Tensor, target: Tensor, mask: Mask, ignore_index: int
) -> tuple[Tensor, Tensor | None]:
    """Return the labels as int64, with ``ignore_index`` where masked, and the weights or None.

    The weights are those of a floating mask, in at least float32.
    """
    check_labels(logits, target)
    target = target.long()
    if mask is None:
        return target, None
    check_mask(mask, target.shape)
    if mask.dtype == torch.bool:
        return torch.where(mask, target, ignore_index), None
    return torch.where(mask != 0, target, ignore_index), mask.to(at_least_float32(logits).dtype)


def counted_labels(
    target: Tensor, ignore_index: int, weight: Tensor | None, class_weight: Tensor | None
) -> Tensor:
    """Return how many labels are used, or the sum of their weights."""
    valid = target != ignore_index
    if class_weight is None:
        return torch.count_nonzero(valid) if weight is None else (valid * weight).sum()
    of_class = class_weight[torch.where(valid, target, 0)] * valid
    return of_class.sum() if weight is None else (of_class * weight).sum()


def _all_but_channels(tensor: Tensor) -> tuple[int, ...]:
    return tuple(axis for axis in range(tensor.ndim) if axis != 1)
