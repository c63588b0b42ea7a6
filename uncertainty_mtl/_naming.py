"""Heads by task name: how names become names of modules, and groups of tasks."""

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

from torch import nn

from uncertainty_mtl._checks import check_positive, check_tasks
from uncertainty_mtl.task_head import TaskHead


class HeadsByName(nn.Module):
    """Holds the heads of a loss by task; a group of tasks is a module with ``heads`` of its own.

    It has no methods, which would take their names away from tasks: the functions below read it.
    """

    def __init__(self, heads: Mapping[str, nn.Module], share_heads: bool) -> None:
        super().__init__()
        self._module_names = {task: module_name(task) for task in heads}
        for task, head in heads.items():
            self.add_module(self._module_names[task], head)
        _check_names(self)
        if not share_heads:
            _check_nothing_is_shared(self)


def entries(heads: HeadsByName) -> dict[str, Any]:
    """Return head or group by task."""
    # Through the modules, not a dict kept beside them: a wrapper may have replaced one.
    return {task: getattr(heads, name) for task, name in heads._module_names.items()}


def own_heads(heads: HeadsByName) -> dict[str, TaskHead]:
    """Return the heads that are in no group, by task."""
    return {task: head for task, head in entries(heads).items() if isinstance(head, TaskHead)}


def all_heads(heads: HeadsByName) -> Iterator[tuple[str, TaskHead]]:
    """Yield all heads, those of groups as ``"group.task"``."""
    for task, entry in entries(heads).items():
        if isinstance(entry, TaskHead):
            yield task, entry
        else:
            for name, head in all_heads(entry.heads):
                yield f"{task}.{name}", head


def names_within(heads: HeadsByName, task: str) -> list[str]:
    """Return the names that :func:`all_heads` gives to a task, or to the tasks of a group."""
    entry = entries(heads)[task]
    if isinstance(entry, TaskHead):
        return [task]
    return [f"{task}.{name}" for name, _ in all_heads(entry.heads)]


def module_name(task: object) -> str:
    """Return the name under which a task's head is registered: its own, wherever that is possible.

    A module's name holds no dot, which separates levels in a ``state_dict``, and hides none of
    the attributes of a module, such as ``type``. Those are written as in a URL: ``a%2Eb``.
    """
    if not isinstance(task, str) or not task:
        raise ValueError(f"Task names should be non-empty strings. Found {task!r}.")
    name = task.replace("%", "%25").replace(".", "%2E")
    if hasattr(nn.Module(), name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


def tasks_in(state_dict: Mapping[str, Any]) -> list[str]:
    """Return the tasks whose state a loss's ``state_dict`` holds."""
    keys = [key.split(".") for key in state_dict if key.startswith("heads.")]
    return list(dict.fromkeys(unquote(key[1]) for key in keys))


def check_options(
    heads: HeadsByName,
    constraint: str | None,
    priorities: Mapping[str, float],
    warmup_steps: int,
) -> None:
    """Raise unless the options of a loss are in range, and combine with its heads."""
    check_tasks("priorities", priorities, entries(heads), may_be_left_out=entries(heads))
    for task, priority in priorities.items():
        check_positive(f"priorities[{task!r}]", priority)
    if not (isinstance(warmup_steps, int) and warmup_steps >= 0):
        raise ValueError(
            f"`warmup_steps` should be a number of steps, 0 or more. Found {warmup_steps!r}."
        )
    own = own_heads(heads)
    groups = [task for task in entries(heads) if task not in own]
    if constraint is not None and (groups or priorities):
        raise ValueError(
            "`constraint='unit_sum'` should come without priorities and groups, as the weights of "
            f"the tasks themselves sum to 1. Found priorities {priorities} and groups {groups}. "
            "Give the constraint to a group's own loss, or leave it out."
        )
    inside = [task for task, head in own.items() if head.form is None and head.learns]
    if warmup_steps and inside:
        raise ValueError(
            "`warmup_steps` should come with heads that weigh an error. Found a learned scale "
            f"inside the likelihood of {inside}. Leave out `exact=True` or the warm-up."
        )


def _check_names(heads: HeadsByName) -> None:
    names = [name for name, _ in all_heads(heads)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            "Every task should have a name of its own, `group.task` within a group. Found "
            f"{twice} more than once. Rename a task or the group."
        )


def _check_nothing_is_shared(heads: HeadsByName) -> None:
    owner: dict[int, str] = {}
    for task, entry in entries(heads).items():
        for module in entry.modules():
            first = owner.setdefault(id(module), task)
            if first != task and isinstance(module, TaskHead):
                raise ValueError(
                    f"Every task should have a head of its own. Found one head under {first!r} "
                    f"and {task!r}, which would share one sigma. Build a head for each, or say "
                    "that it is meant with `share_heads=True`."
                )
