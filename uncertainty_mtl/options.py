"""Checks the options of a loss, each by itself and in combination."""

from collections.abc import Collection, Mapping

from uncertainty_mtl import forms
from uncertainty_mtl._checks import check_between, check_choice, check_tasks
from uncertainty_mtl._tasks import HeadsByName, own_heads, tasks_of


def check_options(
    heads: HeadsByName,
    *,
    estimator: str,
    momentum: float,
    weights: Mapping[str, float] | None,
    form: str,
    constraint: str | None,
    temperature: float | None,
    priorities: Mapping[str, float],
    extra: str,
    zero_is_missing: bool | Collection[str],
) -> None:
    """Raise unless the options of a loss are valid, and fit each other and the heads.

    The options are those of :class:`~uncertainty_mtl.UncertaintyWeightedLoss`.
    """
    check_choice("estimator", estimator, ("learned", "closed_form", "fixed"))
    check_choice("form", form, forms.NAMES)
    check_choice("constraint", constraint, (None, "unit_sum", "softmax"))
    check_choice("extra", extra, ("raise", "ignore", "add"))
    check_between("momentum", momentum, 0, 1)
    tasks = tasks_of(heads)
    check_tasks("priorities", priorities, tasks, may_be_left_out=tasks)
    for task, priority in priorities.items():
        check_between(f"priorities[{task!r}]", priority, 0)
    own = own_heads(heads)
    if not isinstance(zero_is_missing, bool):
        if isinstance(zero_is_missing, str) or not isinstance(zero_is_missing, Collection):
            raise TypeError(
                "`zero_is_missing` should be a bool, or a list of tasks such as ['boxes']. Found "
                f"{zero_is_missing!r}."
            )
        if unknown := [task for task in zero_is_missing if task not in own]:
            raise ValueError(
                f"`zero_is_missing` should name tasks of this loss, {list(own)}. Found {unknown}."
            )
    _check_weights(heads, estimator, weights)
    for task, head in own.items():
        name = type(head).__name__
        if head.form is None and form != "nll":
            raise ValueError(
                f"Task {task!r}: {name} should have `form='nll'`, as its scale is part of the "
                f"likelihood. Found {form!r}. Choose a head that weighs its error."
            )
        if head.form is None and head.log_var is not None and estimator != "learned":
            raise ValueError(
                f"Task {task!r}: {name} should learn its scale by gradient. Found `estimator="
                f"{estimator!r}`. Use `estimator='learned'`, or another head."
            )
    _check_constraint(heads, estimator, form, constraint, temperature, priorities)


def _check_weights(heads: HeadsByName, estimator: str, weights: Mapping[str, float] | None) -> None:
    if weights is None:
        return
    if estimator != "fixed":
        raise ValueError(
            "`weights` should come with `estimator='fixed'`. Found them with `estimator="
            f"{estimator!r}`, which finds the weights itself. Use `priorities` to scale them."
        )
    own = own_heads(heads)
    check_tasks("weights", weights, own, may_be_left_out=own)
    for task, weight in weights.items():
        check_between(f"weights[{task!r}]", weight, 0, may_be_low=True)


def _check_constraint(
    heads: HeadsByName,
    estimator: str,
    form: str,
    constraint: str | None,
    temperature: float | None,
    priorities: Mapping[str, float],
) -> None:
    if (constraint == "softmax") != (temperature is not None):
        raise ValueError(
            "`temperature` should come with `constraint='softmax'`, which has no default for it, "
            f"as it depends on the units of the losses. Found temperature={temperature} and "
            f"constraint={constraint!r}."
        )
    if constraint is None:
        return
    if temperature is not None:
        check_between("temperature", temperature, 0)
    allowed = ["closed_form"] if constraint == "softmax" else ["learned", "closed_form"]
    if estimator not in allowed:
        raise ValueError(
            f"`constraint={constraint!r}` should come with one of the estimators {allowed}. Found "
            f"{estimator!r}."
        )
    tasks, own = tasks_of(heads), own_heads(heads)
    for task, head in own.items():
        if head.form is None or form == "liebel_koerner" or head.num_channels is not None:
            raise ValueError(
                f"`constraint={constraint!r}` should have heads with one sigma each, of a form "
                f"whose penalty is the logarithm of its weight. Found {head} with form {form!r} "
                f"for task {task!r}. Leave out `num_channels`, `exact` or the form, or the "
                "constraint."
            )
    if len(own) < len(tasks) or priorities:
        raise ValueError(
            f"`constraint={constraint!r}` should come without priorities and groups, as the "
            f"weights of the tasks themselves sum to 1. Found priorities {dict(priorities)} and "
            f"groups {[task for task in tasks if task not in own]}. Give the constraint to a "
            "group's own loss, or leave it out."
        )
    if len({id(head) for head in own.values()}) < len(own):
        raise ValueError(
            f"`constraint={constraint!r}` should have a head of its own for every task. Found a "
            "shared head. Leave out `share_heads` or the constraint."
        )
