"""Checks of the arguments that a caller passes. Each raises one clear error.

Every message says what was expected, what was found, and the way out. The checks take no device
time: they look only at shapes, types and names, because reading a *value* would make the host
wait for the device.
"""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

WAYS_TO_A_TENSOR = {
    "loss": "Pass the loss as it was computed, without `.item()`; a task without labels in this "
    "step is passed as None.",
    "prediction": "A task without labels in this step has None as its target.",
    "target": "Convert it with `torch.as_tensor(target)`.",
}


def check_floating(name: str, tensor: object) -> None:
    """Raise unless ``tensor`` is a real floating-point tensor."""
    if not isinstance(tensor, Tensor):
        way_out = WAYS_TO_A_TENSOR.get(name, "")
        if name == "loss" and isinstance(tensor, list | tuple):
            way_out = "Reduce several losses of one task to their sum or mean."
        raise TypeError(f"`{name}` should be a tensor. Found {type(tensor).__name__}. {way_out}")
    if not tensor.is_floating_point():
        raise TypeError(
            f"`{name}` should be a floating-point tensor. Found dtype {tensor.dtype}. "
            f"Convert it with `{name}.float()`."
        )


def check_same_shape(
    prediction: Tensor, target: Tensor, names: tuple[str, str] = ("prediction", "target")
) -> None:
    """Raise unless the shapes are equal."""
    if prediction.shape != target.shape:
        longer = names[0] if prediction.ndim > target.ndim else names[1]
        has_extra = prediction.ndim != target.ndim and prediction.numel() == target.numel()
        raise ValueError(
            f"`{names[0]}` and `{names[1]}` should have the same shape; they are never broadcast. "
            f"Found `{names[0]}.shape = {tuple(prediction.shape)}` and `{names[1]}.shape = "
            f"{tuple(target.shape)}`."
            + (f" Drop the extra axis of `{longer}`, as in `.squeeze(1)`." if has_extra else "")
        )


def check_optimizers(optimizers: Iterable[Optimizer], learned: Mapping[str, Tensor]) -> None:
    """Raise unless each learned ``log_var`` is in one optimizer, once, and is not decayed."""
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    holding = {
        task: [group for group in groups if any(p is log_var for p in group["params"])]
        for task, log_var in learned.items()
    }
    wrong = {
        "no `log_var` of {} in its groups": [t for t, found in holding.items() if not found],
        "the `log_var` of {} in several groups": [t for t, f in holding.items() if len(f) > 1],
        "weight decay on the `log_var` of {}": [
            t for t, found in holding.items() if any(g.get("weight_decay", 0) for g in found)
        ],
        "the `log_var` of {} without `requires_grad`, though nobody called `freeze`": [
            t for t, log_var in learned.items() if not log_var.requires_grad
        ],
    }
    found = [what.format(tasks) for what, tasks in wrong.items() if tasks]
    if found:
        raise ValueError(
            "The optimizer should hold the `log_var` of every task once, without weight decay. "
            f"Found {' and '.join(found)}. Build it from `[{{'params': model.parameters()}}, "
            "*loss_fn.param_groups()]`. Where the loss is part of the model, leave its parameters "
            "out of the first group; where other code has frozen them, call "
            "`loss_fn.requires_grad_(True)`, or `loss_fn.freeze()` if that is meant."
        )


def check_pair(prediction: object) -> tuple[Tensor, Tensor]:
    """Return mean and log-variance from a prediction; raise unless it is a pair."""
    # A tuple of types: the compiler of torch 2.4 does not know a union of them.
    if not (isinstance(prediction, (tuple, list)) and len(prediction) == 2):
        raise TypeError(
            "`prediction` should be a pair (mean, log_var) of tensors, because the network also "
            f"predicts the noise. Found {type(prediction).__name__}. Split a tensor of 2C channels "
            "with `tuple(tensor.chunk(2, dim=1))`."
        )
    return prediction[0], prediction[1]


def check_logit_noise(logits: Tensor, log_var: Tensor) -> None:
    """Raise unless there is one noise scale per logit, or one per element."""
    per_element = (logits.shape[0], 1, *logits.shape[2:])
    if tuple(log_var.shape) not in (tuple(logits.shape), per_element):
        raise ValueError(
            f"`prediction[1]`, the log-variance of the logits' noise, should have shape "
            f"{tuple(logits.shape)} or {per_element}. Found {tuple(log_var.shape)}."
        )


def check_labels(logits: Tensor, target: object) -> None:
    """Raise unless ``target`` holds one integer label for every position of ``logits``."""
    if not isinstance(target, Tensor):
        raise TypeError(f"`target` should be a tensor of labels. Found {type(target).__name__}.")
    if target.is_floating_point() or target.is_complex() or target.dtype == torch.bool:
        raise TypeError(
            f"`target` should hold integer class labels. Found dtype {target.dtype}. Binary and "
            "multi-label targets, one number from 0 to 1 for each logit, belong to "
            "`ScaledSigmoidHead`. Labels turn into integers with `target.long()`. For soft labels, "
            "as in mixup, pass the reduced loss `F.cross_entropy(logits, target)` itself."
        )
    if logits.ndim > 1 and logits.shape[1] == 1:
        raise ValueError(
            "`prediction` should hold logits of at least two classes on axis 1. Found one. A "
            "single logit for yes or no, with floating targets, belongs to `ScaledSigmoidHead`."
        )
    if logits.ndim < 2 or target.shape != without_channels(logits):
        raise ValueError(
            "`prediction` should hold logits of shape (N, C, *) and `target` labels of shape (N, "
            f"*), without the channel axis. Found `prediction.shape = {tuple(logits.shape)}` and "
            f"`target.shape = {tuple(target.shape)}`. "
            + (
                "Logits and targets of one shape, as in binary tasks, belong to "
                "`ScaledSigmoidHead`; one-hot targets turn into labels with `.argmax(1)`."
                if logits.shape == target.shape or logits.ndim == 1
                else "A channel axis of size 1 can be dropped with `.squeeze(1)`; channels in the "
                "last place move with `.movedim(-1, 1)`."
            )
        )


def wrong_label(logits: Tensor, used: Tensor, ignore_index: int) -> ValueError:
    """Return the error for used labels that lie outside 0..C-1."""
    return ValueError(
        f"`target` should hold labels from 0 to {logits.shape[1] - 1}, or `ignore_index = "
        f"{ignore_index}`. Found labels from {used.min()} to {used.max()}. Map other "
        "labels to `ignore_index`, or mask them."
    )


def check_mask(mask: object, *shapes: Iterable[int]) -> None:
    """Raise unless ``mask`` is a bool or floating tensor of one of ``shapes``."""
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` should be a tensor or None. Found {type(mask).__name__}.")
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise TypeError(
            "`mask` should be a bool tensor, True where the target is used, or a floating one, the "
            f"weight of each element. Found dtype {mask.dtype}. Convert it with `mask.bool()` or "
            "`mask.float()`."
        )
    # Compare one by one: a set of shapes would bind a compiled graph to these sizes.
    if not any(tuple(mask.shape) == tuple(shape) for shape in shapes):
        expected = list(dict.fromkeys(tuple(shape) for shape in shapes))
        raise ValueError(
            f"`mask` should have shape {' or '.join(map(str, expected))}; it is not broadcast "
            f"otherwise. Found `mask.shape = {tuple(mask.shape)}`. An extra channel axis can be "
            "dropped with `.squeeze(1)`."
        )


def check_channels(tensor: Tensor, num_channels: int, setting: str = "num_channels") -> None:
    """Raise unless axis 1 of ``tensor`` has as many channels as the head's setting says."""
    if tensor.ndim < 2 or tensor.shape[1] != num_channels:
        raise ValueError(
            f"`prediction` should have {num_channels} channels on axis 1, one per entry of "
            f"`{'log_var' if setting == 'num_channels' else setting}`. Found `prediction.shape = "
            f"{tuple(tensor.shape)}`. Set the head's `{setting}` for that number of channels, or "
            "leave it out to use a single one."
        )


def check_reduced_loss(loss: object, shape: tuple[int, ...]) -> None:
    """Raise unless ``loss`` is a reduced loss of the given shape: (), or one value per channel."""
    if isinstance(loss, Tensor) and loss.shape == shape and loss.is_floating_point():
        return
    check_floating("loss", loss)
    expected = "a scalar, shape ()" if not shape else f"one value per channel, shape {shape}"
    raise ValueError(
        f"An already reduced loss should be {expected}. Found shape "
        f"{tuple(cast(Tensor, loss).shape)}. Reduce it with `.mean()`, or give predictions and "
        "targets: `loss_fn(predictions, targets)`."
    )


def check_between(
    name: str, value: object, low: float, high: float = math.inf, *, may_be_low: bool = False
) -> None:
    """Raise unless ``value`` is a finite number, above ``low`` and at most ``high``."""
    is_number = isinstance(value, numbers.Real) and math.isfinite(value)
    if is_number and low <= cast(float, value) <= high and (may_be_low or value != low):
        return
    expected = f"{'of at least' if may_be_low else 'above'} {low}"
    expected += "" if high == math.inf else f" and at most {high}"
    raise ValueError(f"`{name}` should be a finite number {expected}. Found {value!r}.")


def check_sigma(init_sigma: float | None, bounds: tuple[float, float]) -> None:
    """Raise unless ``0 < low < high`` and the start lies between them."""
    if not (isinstance(bounds, tuple | list) and len(bounds) == 2):
        raise ValueError(f"`sigma_bounds` should be a pair (low, high). Found {bounds!r}.")
    low, high = bounds
    check_between("sigma_bounds[0]", low, 0)
    check_between("sigma_bounds[1]", high, 0)
    if low >= high:
        raise ValueError(f"`sigma_bounds` should be (low, high) with low < high. Found {bounds}.")
    if init_sigma is None:
        return
    check_between("init_sigma", init_sigma, 0)
    if not low <= init_sigma <= high:
        raise ValueError(
            f"`init_sigma` should lie within `sigma_bounds`. Found {init_sigma} and {bounds}. "
            "Widen the bounds or start inside them."
        )


def check_count(name: str, value: object, or_none: str = "") -> None:
    """Raise unless ``value`` is an integer of at least 1, or None where that has a meaning."""
    if (value is None and or_none) or (isinstance(value, int) and value >= 1):
        return
    other = f", or None ({or_none})" if or_none else ""
    raise ValueError(f"`{name}` should be an integer of at least 1{other}. Found {value!r}.")


def check_class_weight(class_weight: Tensor, logits: object = None) -> None:
    """Raise unless ``class_weight`` holds one number per class, as many as the logits have."""
    check_floating("class_weight", class_weight)
    num_classes = logits.shape[1] if isinstance(logits, Tensor) and logits.ndim > 1 else None
    if class_weight.ndim != 1 or num_classes not in (None, class_weight.shape[0]):
        classes = "" if num_classes is None else f" ({num_classes} on axis 1 of the logits)"
        raise ValueError(
            f"`class_weight` should have shape (C,), one weight per class{classes}. Found "
            f"`class_weight.shape = {tuple(class_weight.shape)}`."
        )


REDUCED_IN_ORDER = (
    " Already reduced losses may also come in order, as a sequence or a 1-D tensor, without "
    "`targets`."
)


def check_tasks(
    argument: str, found: object, tasks: Iterable[str], *, may_be_left_out: Iterable[str] = ()
) -> None:
    """Raise unless the keys of ``found`` are ``tasks``; ``may_be_left_out`` are optional."""
    if isinstance(found, Mapping) and found.keys() == dict.fromkeys(tasks).keys():
        return
    tasks, optional = list(tasks), list(may_be_left_out)
    expected = f"`{argument}` should be a mapping with the tasks {tasks}. Found"
    if not isinstance(found, Mapping):
        raise TypeError(
            f"{expected} {type(found).__name__}."
            + (REDUCED_IN_ORDER if argument == "predictions" else "")
        )
    missing = [name for name in tasks if name not in found and name not in optional]
    unknown = [name for name in found if name not in tasks]
    if missing or unknown:
        raise ValueError(
            f"{expected} {list(found)}"
            + (f"; missing: {missing}" if missing else "")
            + (f"; unknown: {unknown}" if unknown else "")
            + "."
            + (" A task without labels in this step is passed as None." if missing else "")
            + (" Leave out entries that belong to no task of this loss" if unknown else "")
            + (" (or see `extra`)" if unknown and argument == "predictions" else "")
            + ("." if unknown else "")
        )


def without_channels(tensor: Tensor) -> tuple[int, ...]:
    """Return the shape of ``tensor`` without its channel axis, axis 1."""
    return tuple(tensor.shape[:1]) + tuple(tensor.shape[2:])


def check_choice(name: str, value: object, choices: Iterable[object]) -> None:
    """Raise unless ``value`` is one of the choices."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(f"`{name}` should be one of {choices}. Found {value!r}.")
