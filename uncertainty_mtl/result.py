"""The result of a loss, and how it is computed from base losses and log-variances."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from uncertainty_mtl import forms
from uncertainty_mtl.entries import Entries, Step


class MultiTaskLoss(NamedTuple):
    """The total to call ``.backward()`` on, and the term, error and count of each task.

    This is what :class:`~uncertainty_mtl.UncertaintyWeightedLoss` returns. Read its fields by name.

    Attributes:
        total: The sum over tasks, 0-dim.
        tasks: Each task's negative log-likelihood, 0-dim, differentiable; they sum to ``total``.
        errors: Each task's mean base loss in this step, detached; nan for a task without labels.
            0-dim, or ``(C,)`` with ``num_channels``; the tasks of a group are named
            ``"group.task"``. If a head has its scale inside the likelihood, its error is the
            negative log-likelihood.
        counts: The number of valid elements in each mean, or the sum of their weights; 1 for an
            already reduced loss. Shapes and names are those of ``errors``. To combine the errors of
            several batches, take their mean weighted by ``counts``.
    """

    total: Tensor
    tasks: dict[str, Tensor]
    errors: dict[str, Tensor]
    counts: dict[str, Tensor]


def weigh_tasks(entries: Entries, step: Step, log_vars: Tensor) -> MultiTaskLoss:
    """Return the result for the tasks that are in no group."""
    terms = forms.weigh(step.form, step.losses, log_vars, step.constant)
    errors = step.losses.detach() + step.blank
    return MultiTaskLoss(
        terms.sum(),
        dict(zip(entries.tasks, entries.summed(terms), strict=True)),
        dict(zip(entries.tasks, entries.split(errors), strict=True)),
        dict(zip(entries.tasks, entries.split(step.num_valid.detach().clone()), strict=True)),
    )


def with_groups(
    order: Iterable[str],
    own: MultiTaskLoss | None,
    groups: Mapping[str, MultiTaskLoss],
    priorities: Mapping[str, float],
) -> MultiTaskLoss:
    """Return one result for all tasks and groups of a loss, in the given order."""
    tasks: dict[str, Tensor] = {}
    errors: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for task in order:
        if task in groups:
            group = groups[task]
            tasks[task] = group.total * priorities.get(task, 1.0)
            errors.update({f"{task}.{name}": error for name, error in group.errors.items()})
            counts.update({f"{task}.{name}": count for name, count in group.counts.items()})
        elif own is not None:
            tasks[task] = own.tasks[task]
            errors[task], counts[task] = own.errors[task], own.counts[task]
    return MultiTaskLoss(torch.stack(list(tasks.values())).sum(), tasks, errors, counts)


def with_extra(losses: MultiTaskLoss, extra: Mapping[str, Tensor]) -> MultiTaskLoss:
    """Return the result with losses that belong to no task added at weight 1."""
    try:
        added = torch.stack([loss.to(losses.total.dtype) for loss in extra.values()]).sum()
        total = losses.total + added
    except RuntimeError as error:
        places = {name: str(loss.device) for name, loss in extra.items()}
        raise ValueError(
            f"Losses that belong to no task should be on the device of the others, "
            f"{str(losses.total.device)!r}. Found {places}."
        ) from error
    tasks = {**losses.tasks, **{name: loss.clone() for name, loss in extra.items()}}
    return MultiTaskLoss(total, tasks, losses.errors, losses.counts)
