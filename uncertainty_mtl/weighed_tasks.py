"""Computes a loss from the inputs of a call: heads, an estimator and a constraint at work."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from uncertainty_mtl import _tasks, forms
from uncertainty_mtl._tasks import HeadsByName, own_heads, tasks_of
from uncertainty_mtl.collectives import Group, num_ranks
from uncertainty_mtl.constraint import Constraint, Free, UnitSum
from uncertainty_mtl.entries import Entries, Measured, settings_of
from uncertainty_mtl.estimators import (
    ClosedForm,
    Estimator,
    Learned,
    observe,
    observe_outside_of_graphs,
)
from uncertainty_mtl.inputs import inputs_of_call, joined, measure, naming, warn_if_graph_is_cut
from uncertainty_mtl.result import MultiTaskLoss, weigh_tasks, with_groups
from uncertainty_mtl.start import Start
from uncertainty_mtl.task_head import TaskHead

# A task's value is None where it has no labels, and a mapping again where it is a group of tasks.
ByTask: TypeAlias = Mapping[str, Any]


class WeighedTasks(nn.Module):
    """What :class:`~uncertainty_mtl.UncertaintyWeightedLoss` computes, with its options checked."""

    def __init__(
        self,
        heads: HeadsByName,
        *,
        estimator: str,
        momentum: float,
        form: str,
        constraint: str | None,
        priorities: Mapping[str, float],
        global_counts: bool,
        process_group: Group,
    ) -> None:
        super().__init__()
        _tasks.check_options(heads, estimator, form, constraint, priorities)
        self.heads = heads
        self.estimator, self.form = estimator, form
        self.priorities = dict(priorities)
        self.global_counts, self.process_group = global_counts, process_group
        num_entries = sum(head.num_channels or 1 for head in own_heads(heads).values())
        self.scales: Estimator = (
            Learned() if estimator == "learned" else ClosedForm(num_entries, momentum)
        )
        self.constraint: Constraint = Free() if constraint is None else UnitSum(num_entries)
        self._forms = [
            forms.SCALE_INSIDE if head.form is None else forms.named_form(form, head.form)
            for head in own_heads(heads).values()
        ]
        self._entries_of: dict[Any, Entries] = {}
        self._warned_of: set[str] = set()
        # transformers calls `_init_weights` only of modules that own a tensor it has not loaded.
        self.register_buffer("_owned", torch.zeros((), dtype=torch.long), persistent=False)

    def __getitem__(self, task: str) -> "TaskHead | WeighedTasks":
        found: TaskHead | WeighedTasks = _tasks.task_of(self.heads, task)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(tasks_of(self.heads))

    def __len__(self) -> int:
        return len(tasks_of(self.heads))

    def __getstate__(self) -> dict[str, Any]:
        # Copies make the constants anew.
        return {**self.__dict__, "_entries_of": {}}

    def _weigh(self, predictions: Any, targets: Any, masks: Any) -> MultiTaskLoss:
        groups, measured = self._measure(predictions, targets, masks)
        own = None
        if measured is not None:
            entries, step = measured
            if self.training:
                self._observe(entries, step)
            log_vars = self.scales.in_graph(entries, self.constraint, step, training=self.training)
            own = weigh_tasks(entries, step, log_vars)
            if not groups:
                return own
        return with_groups(list(tasks_of(self.heads)), own, groups, self.priorities)

    def _initialize(self, predictions: Any, targets: Any, masks: Any) -> None:
        with torch.no_grad():
            _, measured = self._measure(predictions, targets, masks, initialize=True)
            if measured is not None:
                entries, step = measured
                self.scales.initialize(entries, self.constraint, step, self.process_group)

    def _observe(self, entries: Entries, step: Measured) -> None:
        if not torch.compiler.is_compiling():
            self.scales.check(entries)
        if not self.scales.has_to_observe():
            return
        # `global_counts` has joined the losses; without a start from data there is nothing to join.
        is_from_data = any(head.init_sigma is None for head in entries.heads)
        group = self.process_group if is_from_data and not self.global_counts else False
        is_joined = self.scales.start.is_pending and num_ranks(group) > 1
        look = observe_outside_of_graphs if is_joined else observe
        look(self.scales, entries, self.constraint, step, group)

    def _measure(
        self, predictions: Any, targets: Any, masks: Any, *, initialize: bool = False
    ) -> tuple[dict[str, Any], tuple[Entries, Measured] | None]:
        """Return what groups return, and the base losses of all other tasks as vectors."""
        tasks = tasks_of(self.heads)
        inputs = inputs_of_call(tasks, predictions, targets, masks)
        own = {task: entry for task, entry in tasks.items() if isinstance(entry, TaskHead)}
        groups = {
            task: naming(task, entry._as_group, inputs[task], initialize)
            for task, entry in tasks.items()
            if task not in own
        }
        summed, counts = measure(own, inputs)
        if initialize:
            for task, head in own.items():
                if len(inputs[task]) > 1 and inputs[task][1] is not None and not head.frozen:
                    head.fit_scale(*inputs[task])
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            warn_if_graph_is_cut(inputs, summed, self._warned_of)
        if not own:
            return groups, None
        vector = joined(summed, own)
        entries = self._entries(own, vector)
        group = self.process_group if self.global_counts else False
        return groups, (entries, entries.measured(vector, counts, group))

    def _as_group(self, inputs: Sequence[Any], initialize: bool) -> Any:
        # A group is None where none of its tasks has labels, and so is each of them.
        nothing = dict.fromkeys(tasks_of(self.heads))
        values = [nothing if v is None else v for v in inputs[:2]] + list(inputs[2:])
        values += [None] * (3 - len(values))
        return self._initialize(*values) if initialize else self(*values)

    def _entries(self, own: Mapping[str, TaskHead], like: Tensor) -> Entries:
        if torch.compiler.is_compiling():
            return Entries(own, self._forms, self.priorities, like)
        key = like.device, like.dtype
        entries = self._entries_of.get(key)
        if entries is None or entries.settings != settings_of(own, self.priorities):
            if entries is not None:  # a head may have been reset, or unfrozen
                self.scales.start = Start()
            with torch.inference_mode(False):  # an evaluation makes constants for training, too
                entries = Entries(own, self._forms, self.priorities, like)
            self._entries_of[key] = entries
        # Read again in each call: FSDP and `functional_call` replace the parameter objects.
        entries.parameters = [head.log_var for head in own.values()]
        return entries

    def _by_task(
        self,
        of_heads: Callable[[Entries, Tensor], Tensor],
        of_group: Callable[[Any], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return a function of the log-variances by task, of a group's tasks as "group.task"."""
        own, found = own_heads(self.heads), {}
        if own:
            like = next((h.log_var for h in own.values() if h.log_var is not None), torch.zeros(()))
            entries = self._entries(own, like.new_empty((), dtype=torch.float32))
            values = of_heads(entries, self.scales.log_vars(entries, self.constraint))
            found = dict(zip(own, entries.split(values), strict=True))
        return _tasks.flattened(
            {
                task: of_group(entry) if isinstance(entry, WeighedTasks) else found[task]
                for task, entry in tasks_of(self.heads).items()
            }
        )
