"""Where the scales of a step come from: learned or in closed form, free or constrained.

===============  ==========================  =======================================
estimator        ``constraint=None``         ``constraint="unit_sum"``
===============  ==========================  =======================================
``learned``      every head and form         heads with one scale and a power form
``closed_form``  heads that weigh an error   heads with one scale and a power form
===============  ==========================  =======================================

A power form is every one but ``liebel_koerner``. Heads that hold their scale inside of the
likelihood (exact softmax, data-dependent noise) weigh no error.
"""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

from uncertainty_mtl.constraint import UnitSum
from uncertainty_mtl.forms import BaseLoss, PowerForm
from uncertainty_mtl.task_head import TaskHead

Heads: TypeAlias = Mapping[str, TaskHead]
Bases: TypeAlias = Mapping[str, BaseLoss]
LogVars: TypeAlias = dict[str, Tensor]


def scales(heads: Heads, constraint: UnitSum | None, bases: Bases, training: bool) -> LogVars:
    """Return the scale that each task has in this step."""
    if constraint is None:
        return {task: head.bounded_log_var() for task, head in heads.items()}
    return unit_sum_in_graph(heads, constraint, bases, training)


def observe(heads: Heads, bases: Bases) -> None:
    """Update the running means of closed-form scales; a shared head sees its tasks' average."""
    for head, base in by_distinct_head(heads, bases):
        head.observe(base)


def unit_sum(heads: Heads, constraint: UnitSum) -> LogVars:
    """Return the scales whose weights sum to 1, detached."""
    if any(head.momentum is not None for head in heads.values()):
        losses = torch.cat([_implied_loss(head) for head in heads.values()])
        return dict(zip(heads, constraint.optimal_log_vars(losses), strict=True))
    # Not within `sigma_bounds`: that the weights sum to 1 bounds them already.
    log_vars = [head.log_var for head in heads.values()]
    return dict(zip(heads, constraint.project(log_vars), strict=True))


def unit_sum_in_graph(heads: Heads, constraint: UnitSum, bases: Bases, training: bool) -> LogVars:
    """Return the scales of :func:`unit_sum` with the gradient of a joint normalisation.

    In training mode they are also written to the parameters, so that these stay on the simplex.
    """
    projected = unit_sum(heads, constraint)
    if any(head.momentum is not None for head in heads.values()):
        return projected
    if training:
        with torch.no_grad():
            for task, head in heads.items():
                head.log_var.copy_(projected[task])
        constraint.remember(list(projected.values()))
    # Their values, with the gradient of the parameters.
    values = [
        p + (h.log_var - h.log_var.detach())
        for p, h in zip(projected.values(), heads.values(), strict=True)
    ]
    labelled = torch.stack([bases[task].num_valid.sum() > 0 for task in heads])
    return dict(zip(heads, constraint.with_joint_gradient(values, labelled), strict=True))


def initialize(heads: Heads, constraint: UnitSum | None, bases: Bases) -> None:
    """Set every scale to its optimum for these base losses."""
    pairs = list(by_distinct_head(heads, bases))
    if constraint is None or any(head.momentum is not None for head in heads.values()):
        for head, base in pairs:
            head.set_to_optimum(base)
        return
    with torch.no_grad():
        losses = [
            torch.where(
                (base.num_valid > 0) & ~base.mean().isnan(),
                base.mean().float(),
                _implied_loss(head).squeeze(0),
            )
            for head, base in pairs
        ]
        optimum = constraint.optimal_log_vars(torch.stack(losses))
        for (head, _), log_var in zip(pairs, optimum, strict=True):
            head.log_var.copy_(log_var)


def by_distinct_head(heads: Heads, bases: Bases) -> Iterable[tuple[TaskHead, BaseLoss]]:
    """Yield each head once, with the average over its labelled tasks if it serves several."""
    tasks_of: dict[int, list[str]] = {}
    for task, head in heads.items():
        # Not `setdefault`, which the compiler of torch 2.4 does not know.
        tasks_of[id(head)] = [*tasks_of.get(id(head), []), task]
    for tasks in tasks_of.values():
        if len(tasks) == 1:
            yield heads[tasks[0]], bases[tasks[0]]
            continue
        # The sum of the tasks' terms is least at the plain average of their means.
        labelled = [(bases[task].num_valid > 0).float() for task in tasks]
        means = [
            bases[task].mean().float() * has for task, has in zip(tasks, labelled, strict=True)
        ]
        yield heads[tasks[0]], BaseLoss(torch.stack(means).sum(0), torch.stack(labelled).sum(0))


def check_unit_sum(heads: Heads) -> list[PowerForm]:
    """Return the forms of the heads; raise unless their weights can be made to sum to 1."""
    forms = []
    for task, head in heads.items():
        if not isinstance(head.form, PowerForm) or head.num_channels is not None:
            raise ValueError(
                f"`constraint='unit_sum'` should have heads with one scale each, of a form whose "
                f"penalty is the logarithm of its weight. Found {head} with form {head.form} for "
                f"task {task!r}. Leave out `num_channels`, `exact` or the form, or the constraint."
            )
        forms.append(head.form)
    if len({id(head) for head in heads.values()}) < len(heads):
        raise ValueError(
            "`constraint='unit_sum'` should have a head of its own for every task. Found a shared "
            "head. Leave out `share_heads` or the constraint."
        )
    return forms


def _implied_loss(head: TaskHead) -> Tensor:
    if head.form is None:
        raise ValueError(f"{head} weighs no error.")
    return head.form.loss_at_optimum(head.bounded_log_var().detach())
