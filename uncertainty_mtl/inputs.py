"""Turns the arguments of a call into base losses."""

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from uncertainty_mtl._checks import check_reduced_loss, check_tasks
from uncertainty_mtl.forms import BaseLoss
from uncertainty_mtl.task_head import TaskHead


def inputs_of_call(
    tasks: Mapping[str, Any], predictions: Any, targets: Any, masks: Any
) -> dict[str, tuple[Any, ...]]:
    """Return what each task was given: ``(loss,)``, or ``(prediction, target, mask)``."""
    if targets is None:
        if masks is not None:
            raise ValueError(
                "`masks` should come with `targets`. Found only `masks`: an already reduced loss "
                "has no elements left to mask."
            )
        predictions = _in_order(tasks, predictions)
        check_tasks("predictions", predictions, tasks)
        return {task: (predictions[task],) for task in tasks}
    masks = {} if masks is None else masks
    check_tasks("predictions", predictions, tasks)
    reduced = [task for task, entry in tasks.items() if _is_reduced(entry, predictions[task])]
    check_tasks("targets", targets, tasks, may_be_left_out=reduced)
    check_tasks("masks", masks, tasks, may_be_left_out=tasks)
    without_elements = [t for t in masks if t not in targets and masks[t] is not None]
    if without_elements:
        raise ValueError(
            f"`masks` should be for tasks with a target. Found masks for {without_elements}, whose "
            "losses are reduced already: there are no elements left to mask."
        )
    return {
        task: (predictions[task], targets[task], masks.get(task))
        if task in targets
        else (predictions[task],)
        for task in tasks
    }


def without_extra(
    tasks: Mapping[str, Any], extra: str, arguments: Sequence[Any]
) -> tuple[list[Any], dict[str, Tensor]]:
    """Return the arguments of a call without entries that belong to no task, and extra losses.

    Namedtuples become dicts by field.

    Args:
        tasks: The tasks of the loss.
        extra: ``"raise"`` leaves such entries to the checks that follow, ``"ignore"`` drops them,
            and ``"add"`` returns those of the predictions, which should be scalar losses.
        arguments: The predictions, targets and masks.
    """
    arguments = [_by_field(values) for values in arguments]
    if extra == "raise":
        return arguments, {}
    added: dict[str, Tensor] = {}
    if extra == "add" and isinstance(arguments[0], Mapping):
        for name, loss in arguments[0].items():
            if name not in tasks and loss is not None:
                naming(name, check_reduced_loss, loss, ())
                added[name] = loss
    kept = [
        {name: value for name, value in values.items() if name in tasks}
        if isinstance(values, Mapping)
        else values
        for values in arguments
    ]
    return kept, added


def measure(
    heads: Mapping[str, TaskHead], inputs: Mapping[str, tuple[Any, ...]]
) -> tuple[dict[str, Tensor], list[Tensor | float]]:
    """Return the summed error of each task, and its number of valid elements.

    The number is a float where it does not depend on masks or labels: 1.0 for a reduced loss, 0.0
    for a task without labels.
    """
    summed: dict[str, Tensor] = {}
    counts: list[Tensor | float] = []
    for task, head in heads.items():
        given = inputs[task]
        label = given[0] if len(given) == 1 else given[1]
        if label is None:
            devices = [part.device for other in inputs.values() for part in parts_of(other[0])]
            device = devices[0] if devices else None
            summed[task] = absent(head, None if len(given) == 1 else given[0], device)
            counts.append(0.0)
        elif len(given) == 1:
            naming(task, head.check_reduced, label)
            summed[task] = label
            counts.append(1.0)
        else:
            summed[task], count = naming(task, _base_loss, head, *given)
            # A user's own head may count with Python numbers.
            counts.append(
                count
                if isinstance(count, Tensor)
                else torch.full_like(summed[task].detach(), count)
            )
    return summed, counts


def _base_loss(head: TaskHead, prediction: Any, *others: Any) -> BaseLoss:
    try:
        return head.base_loss(prediction, *others)
    except RuntimeError:  # perhaps because the head is on another device
        if head.log_var is not None:
            for part in parts_of(prediction):
                _check_device(part.device, head.log_var.device)
        raise


def absent(head: TaskHead, prediction: Any, device: torch.device | None) -> Tensor:
    """Return a loss of 0, from which head and prediction get a zero gradient.

    DistributedDataParallel waits for a gradient of every parameter, so there has to be one. It
    comes from the sum of an empty slice: a prediction without labels may be infinite or nan, and
    a product with 0 would then be nan.
    """
    log_var = head.log_var
    tensors: list[Tensor] = [p for p in head.parameters() if p is not log_var]
    tensors += [part for part in parts_of(prediction) if part.is_floating_point()]
    if tensors or log_var is not None:  # `device` is for a head without either
        device = (tensors[0] if tensors else cast(Tensor, log_var)).device
    zero = torch.zeros((), dtype=torch.float32, device=device)
    if tensors:
        zero = torch.stack([zero, *(x.unsqueeze(0)[:0].sum() for x in tensors)]).sum()
    return zero if head.num_channels is None else zero.expand(head.num_channels)


def parts_of(prediction: Any) -> list[Tensor]:
    """Return the tensors of a prediction: itself, or the mean and log-variance of a pair."""
    if isinstance(prediction, Tensor):
        return [prediction]
    if isinstance(prediction, tuple | list):
        return [part for part in prediction if isinstance(part, Tensor)]
    return []


def naming(task: str, function: Callable[..., Any], *inputs: Any) -> Any:
    """Return ``function(*inputs)``; errors that it raises get the name of the task."""
    try:
        return function(*inputs)
    except TypeError as error:
        raise TypeError(f"Task {task!r}: {error}") from error
    except ValueError as error:
        raise ValueError(f"Task {task!r}: {error}") from error


def joined(summed: Mapping[str, Tensor], heads: Mapping[str, TaskHead]) -> Tensor:
    """Return one vector of all tasks' values, ``()`` or ``(C,)`` each, in at least float32."""
    parts = list(summed.values())
    try:
        if all(part.ndim == 0 for part in parts):
            vector = torch.stack(parts)
        else:
            vector = torch.cat([part.reshape(-1) for part in parts])
    except RuntimeError as error:
        places = {task: str(part.device) for task, part in summed.items()}
        raise ValueError(
            f"The losses of all tasks should be on one device. Found {places}."
        ) from error
    for head in heads.values():
        if head.log_var is not None:
            _check_device(vector.device, head.log_var.device)
            break  # all sigmas are on one device
    is_half = vector.dtype in (torch.float16, torch.bfloat16)
    return vector.float() if is_half else vector


def _check_device(losses: torch.device, sigmas: torch.device) -> None:
    if losses == sigmas:
        return
    where = repr(str(losses))
    way_out = f"Move the sigmas with `loss_fn.to({where})`."
    if sigmas.type == "meta":
        way_out = f"Call `loss_fn.to_empty(device={where})` and `loss_fn.reset_parameters()`."
    raise ValueError(
        f"The losses should be on the device of the sigmas, {str(sigmas)!r}. Found {where}. "
        f"{way_out}"
    )


def warn_if_graph_is_cut(
    inputs: Mapping[str, tuple[Any, ...]],
    measured: Mapping[str, Tensor],
    warned_of: set[str],
    zero_is_missing: Collection[str],
) -> None:
    """Warn, once for each task, of reduced losses that carry no gradient.

    Args:
        inputs: What :func:`inputs_of_call` returned.
        measured: The summed errors, by task.
        warned_of: The tasks that were warned of before; the function adds to them.
        zero_is_missing: The tasks whose loss may be a constant 0. Only the first loss without a
            graph is read for each of them, because reading a value makes the host wait.
    """
    without = [task for task, summed in measured.items() if not summed.requires_grad]
    cut = [task for task in without if len(inputs[task]) == 1 and inputs[task][0] is not None]
    if not cut or warned_of.issuperset(cut):
        return
    try:
        zeros = [task for task in cut if not measured[task].any()]
    except RuntimeError:  # within `vmap`, where no tensor says that it requires a gradient
        return
    warned_of.update(cut)
    cut = [task for task in cut if task not in zeros or task not in zero_is_missing]
    if not cut:
        return
    others = len(without) < len(measured)
    warnings.warn(
        f"The loss of {cut} carries no gradient while others do: for that task only sigma is "
        "trained, and its weight grows. Pass the loss as it was computed; a task without labels in "
        "this step is passed as None."
        if others
        else "No reduced loss carries a gradient: only the sigmas are trained. Pass the losses as "
        "they were computed; `.item()`, `.detach()` and `torch.tensor([a, b])` cut the graph.",
        stacklevel=7,  # the user's call of the loss
    )


def _by_field(values: Any) -> Any:
    """Return a namedtuple as a dict by field; anything else as it is."""
    if isinstance(values, tuple) and hasattr(values, "_asdict"):
        return values._asdict()
    return values


def _in_order(tasks: Mapping[str, Any], losses: Any) -> Any:
    """Return reduced losses by name; a sequence or a stacked tensor is taken in task order."""
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


def _is_reduced(entry: Any, prediction: Any) -> bool:
    """Return whether a task without an entry in ``targets`` may be meant as a reduced loss."""
    if prediction is None or not isinstance(entry, TaskHead):
        return True
    shape = () if entry.num_channels is None else (entry.num_channels,)
    return isinstance(prediction, Tensor) and prediction.shape == shape
