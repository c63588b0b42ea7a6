"""Heads by the names of their tasks, and groups of tasks."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast
from urllib.parse import unquote

from torch import nn

from uncertainty_mtl.classification import ScaledSigmoidHead, ScaledSoftmaxHead
from uncertainty_mtl.heads import GaussianHead, LaplaceHead
from uncertainty_mtl.task_head import TaskHead

LIKELIHOODS: dict[str, Callable[[], TaskHead]] = {
    "gaussian": GaussianHead,
    "laplace": LaplaceHead,
    "softmax": ScaledSoftmaxHead,
    "sigmoid": ScaledSigmoidHead,
}
"""The head that each name stands for, with its default settings."""


class HeadsByName(nn.Module):
    """Holds the heads of a loss by task; a group of tasks is a module with ``heads`` of its own.

    It has no methods of its own, because no task could have the name of such a method. The
    functions below read it.
    """

    def __init__(self, heads: Mapping[str, Any], share_heads: bool) -> None:
        super().__init__()
        if not isinstance(heads, Mapping):
            raise TypeError(
                "`heads` should be a mapping from task name to likelihood, such as {'depth': "
                f"'laplace'}}. Found {type(heads).__name__}."
            )
        if not heads:
            raise ValueError("`heads` should hold at least one task. Found none.")
        self._module_names = {task: module_name(task) for task in heads}
        for task, head in heads.items():
            self.add_module(self._module_names[task], as_head(task, head))
        _check_names(self)
        if not share_heads:
            _check_nothing_is_shared(self)


def as_head(task: str, head: object) -> nn.Module:
    """Return a head or a group unchanged; for a name, return the head that it stands for."""
    if isinstance(head, str):
        if head not in LIKELIHOODS:
            raise ValueError(
                f"The likelihood of task {task!r} should be 'gaussian' (mean squared error), "
                "'laplace' (mean absolute error, L1), 'softmax' (cross-entropy), 'sigmoid' (binary "
                f"cross-entropy, BCE) or a head. Found {head!r}."
            )
        return LIKELIHOODS[head]()
    # A group is a loss, whose class cannot be imported here: its module imports this one.
    if isinstance(head, TaskHead) or isinstance(getattr(head, "heads", None), HeadsByName):
        return cast(nn.Module, head)
    found = f"the class {head.__name__}" if isinstance(head, type) else type(head).__name__
    raise TypeError(
        f"The head of task {task!r} should be a TaskHead, an UncertaintyWeightedLoss (a group of "
        f"tasks) or one of {list(LIKELIHOODS)}. Found {found}."
        + (" Call it to build a head." if isinstance(head, type) else "")
    )


def tasks_of(heads: HeadsByName) -> dict[str, Any]:
    """Return the head of each task, or its group of tasks, by name."""
    # Read from the modules and not from a dict of them, because a wrapper may have replaced one.
    names, children = heads._module_names, list(heads.children())
    if len(children) == len(names):
        return dict(zip(names, children, strict=True))
    return {task: getattr(heads, name) for task, name in names.items()}  # some share a head


def own_heads(heads: HeadsByName) -> dict[str, TaskHead]:
    """Return the heads that are in no group, by task."""
    return {task: head for task, head in tasks_of(heads).items() if isinstance(head, TaskHead)}


def all_heads(heads: HeadsByName) -> Iterator[tuple[str, TaskHead]]:
    """Yield all heads, those of groups as ``"group.task"``."""
    for task, entry in tasks_of(heads).items():
        if isinstance(entry, TaskHead):
            yield task, entry
        else:
            for name, head in all_heads(entry.heads):
                yield f"{task}.{name}", head


def task_of(heads: HeadsByName, task: str) -> Any:
    """Return the head or group of a task; raise an error that lists the tasks if there is none."""
    tasks = tasks_of(heads)
    if task not in tasks:
        group = str(task).partition(".")[0]
        raise ValueError(
            f"The tasks of this loss are {list(tasks)}. Found {task!r}."
            + (
                f" A group has tasks of its own: ask `loss_fn[{group!r}]` for them."
                if group in tasks
                else ""
            )
        )
    return tasks[task]


def module_name(task: object) -> str:
    """Return the name under which a task's head is registered: its own, wherever that is possible.

    A module's name may not hold a dot, which separates levels in a ``state_dict``, and may not hide
    an attribute of a module, such as ``type``. Such names are escaped as in a URL: ``a%2Eb``.
    """
    if not isinstance(task, str) or not task:
        raise ValueError(f"Task names should be non-empty strings. Found {task!r}.")
    name = task.replace("%", "%25").replace(".", "%2E")
    if hasattr(nn.Module(), name) or name == "_module_names":
        name = f"%{ord(name[0]):02X}{name[1:]}"
    return name


def check_checkpoint(expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """Raise unless two ``state_dict``s of losses hold the same tasks; the message names them."""
    tasks, others = _tasks_in(expected), _tasks_in(found)
    missing = [task for task in tasks if task not in others]
    unexpected = [task for task in others if task not in tasks]
    if not (missing or unexpected):
        return
    prefixes = {key[: key.find("heads.")] for key in found if "heads." in key}
    if not others and len(prefixes) == 1:
        (prefix,) = prefixes
        raise RuntimeError(
            f"The checkpoint should hold the sigmas of {tasks} under `heads.`. Found keys with the "
            f"prefix {prefix!r}, which a wrapper or a parent module has put there. Remove it: "
            f"`{{key.removeprefix({prefix!r}): value for key, value in state_dict.items()}}`."
        )
    renamed = len(missing) == len(unexpected) == 1
    raise RuntimeError(
        f"The checkpoint should hold the sigmas of {tasks}. Found those of {others}; "
        f"missing: {missing}; unexpected: {unexpected}"
        + (f"; was {unexpected[0]!r} renamed to {missing[0]!r}?" if renamed else ".")
        + (
            " Load with `strict=False` to keep the sigmas of the tasks in common."
            if len(missing) < len(tasks)
            else ""
        )
    )


def _tasks_in(state_dict: Mapping[str, Any]) -> list[str]:
    keys = [key.split(".") for key in state_dict if key.startswith("heads.")]
    return list(dict.fromkeys(unquote(key[1]) for key in keys))


def _check_names(heads: HeadsByName) -> None:
    names = [name for name, _ in all_heads(heads)]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            "Every task should have a name of its own, `group.task` within a group. Found "
            f"{twice} more than once. Rename a task or the group."
        )


def _check_nothing_is_shared(heads: HeadsByName) -> None:
    owner: dict[int, str] = {}
    for task, entry in tasks_of(heads).items():
        for module in entry.modules():
            first = owner.setdefault(id(module), task)
            if first != task and isinstance(module, TaskHead):
                raise ValueError(
                    f"Every task should have a head of its own. Found one head under {first!r} "
                    f"and {task!r}, which would share one sigma. Build a head for each, or allow "
                    "this with `share_heads=True`."
                )
