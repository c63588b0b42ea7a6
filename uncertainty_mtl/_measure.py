"""From what the caller hands in to the base losses that the heads weigh."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from uncertainty_mtl._checks import check_no_masks, check_tasks
from uncertainty_mtl._naming import HeadsByName, entries, own_heads
from uncertainty_mtl.forms import BaseLoss
from uncertainty_mtl.task_head import TaskHead

Result = TypeVar("Result")


def measure_tasks(
    heads: HeadsByName, predictions: Any, targets: Any, masks: Any, *, initialize: bool = False
) -> tuple[dict[str, Any], dict[str, BaseLoss]]:
    """Return what groups of tasks return, and the base losses of all other tasks.

    Args:
        heads: The heads of a loss.
        predictions: As in the loss's ``forward``.
        targets: As in the loss's ``forward``.
        masks: As in the loss's ``forward``.
        initialize: Whether groups, and scales inside of a likelihood, are initialized meanwhile.
    """
    tasks, groups, bases = entries(heads), {}, {}
    if targets is None:
        check_no_masks(masks)
        predictions, targets = _by_name(tasks, predictions), {}
        check_tasks("predictions", predictions, tasks)
    else:
        check_tasks("predictions", predictions, tasks)
        optional = [task for task, entry in tasks.items() if _is_reduced(entry, predictions[task])]
        check_tasks("targets", targets, tasks, may_be_left_out=optional)
    masks = {} if masks is None else masks
    check_tasks("masks", masks, tasks, may_be_left_out=tasks)

    for task, entry in tasks.items():
        inputs = [predictions[task]]
        if task in targets:
            inputs += [targets[task], masks.get(task)]
        if not isinstance(entry, TaskHead):
            groups[task] = naming(task, entry._as_group, inputs, initialize)
            continue
        bases[task] = naming(task, measure if task in targets else measure_reduced, entry, *inputs)
        if initialize and targets.get(task) is not None:
            entry.fit_scale(*inputs)
    return groups, bases


def reduced_losses(heads: HeadsByName, predictions: Any, targets: Any) -> list[Tensor]:
    """Return the already reduced losses among predictions that :func:`measure_tasks` took."""
    tasks = entries(heads)
    by_task = predictions if targets is not None else _by_name(tasks, predictions)
    return [
        by_task[task]
        for task in own_heads(heads)
        if by_task[task] is not None and (targets is None or task not in targets)
    ]


def measure(head: TaskHead, prediction: Any, target: Any, mask: Any) -> BaseLoss:
    """Return the base loss of a prediction; nothing, but in the graph, if the target is None."""
    return absent(head, prediction) if target is None else head.base_loss(prediction, target, mask)


def measure_reduced(head: TaskHead, loss: Any) -> BaseLoss:
    """Return the base loss for an already reduced loss; nothing if it is None."""
    return absent(head, None) if loss is None else head.reduced(loss)


def absent(head: TaskHead, prediction: Any) -> BaseLoss:
    """Return a base loss over no element, from which head and prediction get a zero gradient.

    A zero, not none at all: DistributedDataParallel waits for a gradient of every parameter. The
    sum of an empty slice, not a product with 0: a prediction without labels may be infinite or
    nan, and 0 * nan is nan.
    """
    tensors = [head.log_var, *head.parameters()]
    tensors += [part for part in _parts(prediction) if part.is_floating_point()]
    zeros = [tensor.unsqueeze(0)[:0].sum() for tensor in tensors]
    # Half precision is summed in float32, like every base loss.
    zero = torch.stack([z.to(torch.promote_types(z.dtype, torch.float32)) for z in zeros]).sum()
    zero = zero if head.num_channels is None else zero.expand(head.num_channels)
    return BaseLoss(zero, torch.zeros_like(zero))


def naming(task: str, function: Callable[..., Result], *inputs: Any) -> Result:
    """Return ``function(*inputs)``, whose errors then name the task."""
    try:
        return function(*inputs)
    except TypeError as error:
        raise TypeError(f"Task {task!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"Task {task!r}: {error}") from error


def _is_reduced(entry: Any, prediction: Any) -> bool:
    """Return whether a task without an entry in ``targets`` may be meant as a reduced loss."""
    if prediction is None or not isinstance(entry, TaskHead):
        return True
    shape = () if entry.num_channels is None else (entry.num_channels,)
    return isinstance(prediction, Tensor) and prediction.shape == shape


def _by_name(tasks: Mapping[str, Any], losses: Any) -> Any:
    """Return reduced losses by name; they may come as a sequence or a stacked tensor, in order."""
    if isinstance(losses, Tensor):
        losses = losses.unbind() if losses.ndim == 1 else losses
    if not isinstance(losses, Sequence) or isinstance(losses, str):
        return losses
    if len(losses) != len(tasks):
        raise ValueError(
            f"A sequence of losses should have one entry per task, {len(tasks)} for {list(tasks)}. "
            f"Found {len(losses)}. A task without labels in this step is passed as None."
        )
    return dict(zip(tasks, losses, strict=True))


def _parts(prediction: Any) -> list[Tensor]:
    if isinstance(prediction, Tensor):
        return [prediction]
    if isinstance(prediction, tuple | list):
        return [part for part in prediction if isinstance(part, Tensor)]
    return []
