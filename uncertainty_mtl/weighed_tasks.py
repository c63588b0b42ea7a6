"""Computes a loss from the inputs of a call, by its heads, an estimator and a constraint."""

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from uncertainty_mtl import _tasks, forms
from uncertainty_mtl._tasks import HeadsByName, own_heads, tasks_of
from uncertainty_mtl.collectives import Group, num_ranks
from uncertainty_mtl.constraint import Constraint, Free, UnitSum
from uncertainty_mtl.entries import Entries, Step, settings_of
from uncertainty_mtl.estimators import (
    ClosedForm,
    Estimator,
    Fixed,
    Learned,
    observe,
    observe_outside_of_graphs,
)
from uncertainty_mtl.inputs import (
    inputs_of_call,
    joined,
    measure,
    naming,
    warn_if_graph_is_cut,
    without_extra,
)
from uncertainty_mtl.result import MultiTaskLoss, weigh_tasks, with_extra, with_groups
from uncertainty_mtl.start_from_data import Start
from uncertainty_mtl.task_head import TaskHead

# A task's value is None where it has no labels, and a mapping again where it is a group of tasks.
ByTask: TypeAlias = Mapping[str, Any]


class WeighedTasks(nn.Module):
    """Computes :class:`~uncertainty_mtl.UncertaintyWeightedLoss`, which has checked the options."""

    def __init__(
        self,
        heads: HeadsByName,
        *,
        estimator: str,
        momentum: float,
        weights: Mapping[str, float] | None,
        form: str,
        constraint: str | None,
        temperature: float | None,
        priorities: Mapping[str, float],
        global_counts: bool,
        process_group: Group,
        extra: str,
        zero_is_missing: bool | Collection[str],
    ) -> None:
        super().__init__()
        self.heads = heads
        self.estimator, self.form, self.extra = estimator, form, extra
        self.priorities = dict(priorities)
        self.global_counts, self.process_group = global_counts, process_group
        # A copy, because the user's collection may change, or may be one that cannot be pickled.
        if not isinstance(zero_is_missing, bool):
            zero_is_missing = frozenset(zero_is_missing)
        self.zero_is_missing = zero_is_missing
        own = own_heads(heads)
        sizes = {_tasks.module_name(task): head.num_channels or 1 for task, head in own.items()}
        builders: dict[str, Callable[[], Estimator]] = {
            "learned": Learned,
            "closed_form": lambda: ClosedForm(sizes, momentum, temperature),
            "fixed": Fixed,
        }
        self.scales = builders[estimator]()
        self.constraint: Constraint = UnitSum(list(sizes)) if constraint == "unit_sum" else Free()
        weights = weights or {}
        self._forms: list[forms.Form] = [
            forms.PowerForm(weights.get(task, 1.0), power=0.0, slope=0.0)
            if estimator == "fixed"
            else forms.SCALE_INSIDE
            if head.form is None
            else forms.named_form(form, head.form)
            for task, head in own.items()
        ]
        self._entries_of: dict[Any, Entries] = {}
        self._warned_of: set[str] = set()
        # transformers calls `_init_weights` only for modules with a tensor that was not loaded.
        # This tensor is never loaded.
        self.register_buffer("_owned", torch.zeros((), dtype=torch.long), persistent=False)

    def __getitem__(self, task: str) -> "TaskHead | WeighedTasks":
        """Return the head of a task, or the loss of a group of tasks: ``loss_fn["depth"]``."""
        found: TaskHead | WeighedTasks = _tasks.task_of(self.heads, task)
        return found

    def __iter__(self) -> Iterator[str]:
        """Yield the names of the tasks, and of the groups, in the order of the constructor."""
        return iter(tasks_of(self.heads))

    def __len__(self) -> int:
        """Return the number of tasks; a group counts as one."""
        return len(tasks_of(self.heads))

    def __getstate__(self) -> dict[str, Any]:
        # A copy makes its own constants.
        return {**self.__dict__, "_entries_of": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> "WeighedTasks":
        memo[id(self.process_group)] = self.process_group  # a handle, which cannot be copied
        found = type(self).__new__(type(self))
        memo[id(self)] = found
        found.__dict__.update(copy.deepcopy(self.__getstate__(), memo))
        return found

    def _weigh(self, predictions: Any, targets: Any, masks: Any) -> MultiTaskLoss:
        tasks, own, inputs, extra = self._inputs(predictions, targets, masks)
        groups = self._of_groups(tasks, inputs, lambda group, *x: group(*x))
        result = None
        if own:
            entries, step = self._measure(own, inputs)
            if self.training:
                self._observe(entries, step)
            log_vars = self.scales.in_graph(entries, self.constraint, step, training=self.training)
            result = weigh_tasks(entries, self.scales.weighed(entries, step), log_vars)
        if groups or result is None:
            result = with_groups(tasks, result, groups, self.priorities)
        return with_extra(result, extra) if extra else result

    def _initialize(self, predictions: Any, targets: Any, masks: Any) -> None:
        tasks, own, inputs, _ = self._inputs(predictions, targets, masks)
        self._of_groups(tasks, inputs, lambda group, *x: group._initialize(*x))
        for task, head in own.items():
            if len(inputs[task]) > 1 and inputs[task][1] is not None and not head.frozen:
                naming(task, head.fit_scale, *inputs[task])
        if own:
            with torch.no_grad():
                entries, step = self._measure(own, inputs)
                self.scales.initialize(entries, self.constraint, step, self.process_group)

    def _inputs(
        self, *arguments: Any
    ) -> tuple[dict[str, Any], dict[str, TaskHead], dict[str, tuple[Any, ...]], dict[str, Tensor]]:
        """Return all tasks, those in no group, their inputs, and losses that belong to no task."""
        tasks = tasks_of(self.heads)
        own = {task: head for task, head in tasks.items() if isinstance(head, TaskHead)}
        arguments_of_tasks, extra = without_extra(tasks, self.extra, arguments)
        return tasks, own, inputs_of_call(tasks, *arguments_of_tasks), extra

    def _of_groups(
        self,
        tasks: Mapping[str, Any],
        inputs: Mapping[str, Sequence[Any]],
        function: Callable[..., Any],
    ) -> dict[str, Any]:
        """Call a function with each group and its inputs; return the results by group name."""
        found = {}
        for task, entry in tasks.items():
            if not isinstance(entry, TaskHead):
                # None for a group stands for None for each of its tasks.
                nothing = dict.fromkeys(list(tasks_of(entry.heads)))
                values = [nothing if v is None else v for v in inputs[task][:2]]
                values += inputs[task][2:]
                values += [None] * (3 - len(values))
                found[task] = naming(task, function, entry, *values)
        return found

    def _observe(self, entries: Entries, step: Step) -> None:
        if not torch.compiler.is_compiling():
            self.scales.check(entries)
        if not self.scales.has_to_observe():
            return
        # `global_counts` has already joined the losses; with `init_sigma` there is nothing to join.
        is_from_data = any(head.init_sigma is None for head in entries.heads)
        group = self.process_group if is_from_data and not self.global_counts else False
        is_joined = self.scales.start.is_pending and num_ranks(group) > 1
        look = observe_outside_of_graphs if is_joined else observe
        look(self.scales, entries, self.constraint, step, group)

    def _measure(
        self, own: Mapping[str, TaskHead], inputs: Mapping[str, tuple[Any, ...]]
    ) -> tuple[Entries, Step]:
        """Return the base losses of all tasks outside groups, as vectors."""
        zero = self.zero_is_missing
        zero_is_missing = (own if zero else ()) if isinstance(zero, bool) else zero
        summed, counts = measure(own, inputs)
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            warn_if_graph_is_cut(inputs, summed, self._warned_of, zero_is_missing)
        vector = joined(summed, own)
        entries = self._entries(own, vector)
        is_there = None
        if zero_is_missing:
            is_there = entries.is_there(vector, counts, zero_is_missing)
            # Another process may have a loss for this task, which gives the task a weight.
            vector = vector * is_there
        group = self.process_group if self.global_counts else False
        return entries, entries.step(vector, counts, group, is_there)

    def _entries(self, own: Mapping[str, TaskHead], like: Tensor) -> Entries:
        if torch.compiler.is_compiling():
            return Entries(own, self._forms, self.priorities, like)
        key = like.device, like.dtype
        entries = self._entries_of.get(key)
        if entries is None or entries.settings != settings_of(own, self.priorities):
            if entries is not None:  # a head may have been reset, or unfrozen
                self.scales.start = Start()
            with torch.inference_mode(False):  # training may use the constants of an evaluation
                entries = Entries(own, self._forms, self.priorities, like)
            self._entries_of[key] = entries
        # Read in each call, because FSDP and `functional_call` replace the parameter objects.
        entries.parameters = [head.log_var for head in own.values()]
        return entries

    def _by_task(self, name: str) -> dict[str, Tensor]:
        """Return the "sigmas" or "weights" of all tasks, those of a group as ``"group.task"``."""
        own, found = own_heads(self.heads), {}
        values: dict[str, Tensor] = {}
        if own:
            like = next((h.log_var for h in own.values() if h.log_var is not None), torch.zeros(()))
            entries = self._entries(own, like.new_empty((), dtype=torch.float32))
            vector = getattr(self.scales, name)(entries, self.constraint)
            values = dict(zip(own, entries.split(vector), strict=True))
        for task, entry in tasks_of(self.heads).items():
            if isinstance(entry, WeighedTasks):
                of_group = getattr(entry, name)()
                found.update({f"{task}.{inner}": value for inner, value in of_group.items()})
            else:
                found[task] = values[task]
        return found
