"""The multi-task loss: one head per task, matched by name, and the sum of their likelihoods."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from uncertainty_mtl import _tasks, forms
from uncertainty_mtl._checks import check_choice, check_momentum, check_optimizers
from uncertainty_mtl._tasks import HeadsByName, own_heads, tasks_of
from uncertainty_mtl.collectives import Group, num_ranks
from uncertainty_mtl.constraint import Constraint, Free, UnitSum
from uncertainty_mtl.entries import Entries, Measured, settings_of
from uncertainty_mtl.estimators import (
    ClosedForm,
    Estimator,
    Learned,
    observe_losses,
    observe_outside_of_graphs,
)
from uncertainty_mtl.inputs import inputs_of_call, joined, measure, naming, warn_if_graph_is_cut
from uncertainty_mtl.result import MultiTaskLoss, weigh_tasks, with_groups
from uncertainty_mtl.start import Start
from uncertainty_mtl.task_head import TaskHead, changed_settings

# A task's value is None where it has no labels, and a mapping again where it is a group of tasks.
ByTask: TypeAlias = Mapping[str, Any]


class UncertaintyWeightedLoss(nn.Module):
    r"""Combines several task losses into one, and learns the weight of each.

    .. math:: \mathcal{L} = \sum_k w(s_k)\, L_k + \tfrac12 s_k, \qquad s_k = \log \sigma_k^2,

    with the base loss :math:`L_k` (mean squared error, mean absolute error, cross-entropy) and
    the weight :math:`w` of each task's head. At its optimum each weight is :math:`c_k/L_k`, with
    :math:`c` = 1/2, 1 and 1/2. What is minimised is :math:`\sum_k c_k \log L_k`, which does not
    depend on the units of any task. The total may be negative: a density may exceed 1.

    Args:
        heads: One head per task, by name: a :class:`TaskHead`, one of the names ``"gaussian"``,
            ``"laplace"`` and ``"softmax"``, or another ``UncertaintyWeightedLoss`` for a group of
            tasks, whose arguments and results are then mappings themselves. The heads are not
            changed: form, estimator and constraint belong to the loss.
        estimator: ``"learned"``: sigmas are parameters. The first usable loss (finite and above 0)
            of a task in training sets its sigma, unless the head has an ``init_sigma``; an
            optimizer moves it from there. ``"closed_form"``: sigmas are the optimum for a running
            mean of the base loss, and no optimizer is needed; every call in training counts.
        momentum: Share of the newest batch in that running mean.
        form: ``"nll"`` for each head's likelihood, or a form found elsewhere, for comparison:
            ``"symmetric"`` (:math:`e^{-s} L + s`, optimum :math:`e^s = L`; the authors' notebook,
            MultiMAE), ``"paper"`` (:math:`\tfrac12 e^{-s} L + \tfrac12 s`, optimum :math:`L`, for
            absolute errors too; :math:`e^{-s} L + \tfrac12 s`, optimum :math:`2L`, for softmax),
            ``"libmtl"`` (:math:`\tfrac12 e^{-s} L + \tfrac12 s` for every task; LibMTL starts at
            :math:`s = -0.5`, which is ``init_sigma=exp(-0.25)``, TorchJD at 0) or
            ``"liebel_koerner"`` (:math:`L/(2p^2) + \log(1 + p^2)` with :math:`s = \log p^2`,
            optimum :math:`p^2 = (L + \sqrt{L^2 + 8L})/4`; AutomaticWeightedLoss). A head by itself
            keeps its likelihood's weight; :meth:`weights` has that of the form.
        constraint: ``"unit_sum"`` keeps the sum of the task weights at 1; see
            :class:`~uncertainty_mtl.constraint.UnitSum`.
        priorities: Factors on whole tasks, by task: sigma's optimum stays, the network sees the
            task ``priority`` times. Tasks that are left out have 1.
        global_counts: Whether means run over the valid elements of all processes, not of each:
            unequal counts then bias nothing. Every process has to call the loss, with ``None`` for
            tasks that it has no labels of. For gradients that are averaged over processes.
        share_heads: Whether one head may serve, and learn one sigma for, several tasks.
        process_group: The processes that start their sigmas together, and that ``global_counts``
            joins: ``None`` for the default group, ``False`` if this process computes the loss by
            itself, as in a pipeline.

    Raises:
        TypeError: If a head is something else.
        ValueError: If there is no task, a name is unknown or unusable, one head is given twice
            without ``share_heads``, or the options do not combine.

    Example:
        >>> model = nn.Linear(4, 2)
        >>> loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "normals": "gaussian"})
        >>> groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
        >>> optimizer = torch.optim.AdamW(groups)
        >>> depth, normals = model(torch.ones(8, 4)).unbind(1)
        >>> targets = {"depth": torch.full((8,), 20.0), "normals": torch.zeros(8)}
        >>> losses = loss_fn({"depth": depth, "normals": normals}, targets)
        >>> losses.total.backward()
        >>> round((loss_fn.weights()["depth"] * losses.errors["depth"]).item(), 4)
        1.0

        Losses computed elsewhere go in as they are:

        >>> mae, mse = torch.ones(2, requires_grad=True)
        >>> losses = loss_fn({"depth": mae, "normals": mse})

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics*, CVPR 2018.
    """

    def __init__(
        self,
        heads: Mapping[str, "TaskHead | UncertaintyWeightedLoss | str"],
        *,
        estimator: Literal["learned", "closed_form"] = "learned",
        momentum: float = 0.1,
        form: Literal["nll", "symmetric", "paper", "libmtl", "liebel_koerner"] = "nll",
        constraint: Literal["unit_sum"] | None = None,
        priorities: Mapping[str, float] | None = None,
        global_counts: bool = False,
        share_heads: bool = False,
        process_group: Group = None,
    ) -> None:
        super().__init__()
        check_choice("estimator", estimator, ("learned", "closed_form"))
        check_choice("form", form, forms.NAMES)
        check_choice("constraint", constraint, (None, "unit_sum"))
        check_momentum(momentum)
        self.heads = HeadsByName(heads, share_heads)
        self.estimator, self.form = estimator, form
        self.priorities = dict(priorities or {})
        self.global_counts, self.process_group = global_counts, process_group
        _tasks.check_options(self.heads, estimator, form, constraint, self.priorities)
        own = own_heads(self.heads).values()
        num_entries = sum(head.num_channels or 1 for head in own)
        self.scales: Estimator = (
            Learned() if estimator == "learned" else ClosedForm(num_entries, momentum)
        )
        self.constraint: Constraint = Free() if constraint is None else UnitSum(num_entries)
        self._entries_of: dict[Any, Entries] = {}
        self._warned_of: set[str] = set()

    @torch.jit.unused  # A scripted model may hold a loss that it does not call.
    def forward(
        self,
        predictions: "ByTask | Sequence[Tensor | None] | Tensor",
        targets: ByTask | None = None,
        masks: ByTask | None = None,
    ) -> MultiTaskLoss:
        """Return the total and each task's negative log-likelihood, error and count.

        Args:
            predictions: What the network predicts, by task, in any order, as a mapping or a
                namedtuple; for a task left out of ``targets`` its already reduced loss. Without
                ``targets`` all of them are reduced losses, and may come as a sequence or a stacked
                1-D tensor in the order of the constructor.
            targets: The target of each task, by task. ``None`` for a task without labels in this
                step (for a reduced loss: ``None`` as the loss): it adds exactly 0, its sigma and
                its prediction get a zero gradient, and the graph stays connected. The momentum of
                the optimizer may still move its sigma.
            masks: Which elements are used, by task; tasks may be left out.

        Under ``torch.compile`` every pattern of ``None`` is a graph of its own; a mask that is
        all False does the same without compiling again.

        Raises:
            TypeError: If a value has another type than its head expects.
            ValueError: If the tasks are not exactly those of the constructor, or shapes do not fit.
            RuntimeError: If sigmas would have to be set within a transform of ``torch.func``, or
                were set in vain, under FSDP: the message has the ways out.
        """
        groups, measured = self._measure(predictions, targets, masks)
        own = None if measured is None else self._weigh(*measured)
        if own is not None and not groups:
            return own
        return with_groups(list(self), own, groups, self.priorities)

    def initialize_from(
        self,
        predictions: "ByTask | Sequence[Tensor | None] | Tensor",
        targets: ByTask | None = None,
        masks: ByTask | None = None,
    ) -> None:
        """Set every sigma to its closed-form optimum for these predictions, or reduced losses.

        Call it like the loss itself, on every process. A task without labels, or whose loss is nan,
        infinite, negative or 0, keeps its sigma, and so does a frozen one. An exact softmax takes
        the best temperature. Sigmas start from the first batch by themselves; this is for other
        batches, for heads with an ``init_sigma``, and for sigmas that FSDP has sharded.

        Raises:
            TypeError, ValueError: As :meth:`forward`.
        """
        with torch.no_grad():
            _, measured = self._measure(predictions, targets, masks, initialize=True)
            if measured is not None:
                entries, step = measured
                self.scales.initialize(entries, self.constraint, step, self.process_group)

    def freeze(self, *tasks: str) -> None:
        """Keep the sigmas of these tasks where they are; of all, if none is named.

        It holds even if other code sets ``requires_grad``; see :meth:`TaskHead.freeze`.
        """
        self._freeze(tasks, True)

    def unfreeze(self, *tasks: str) -> None:
        """Let the sigmas of these tasks be estimated again; of all, if none is named."""
        self._freeze(tasks, False)

    def sigmas(self) -> dict[str, Tensor]:
        """Return each task's sigma, detached, without waiting for the device.

        0-dim, or ``(C,)`` with ``num_channels``; nan for a likelihood without a sigma of its own.
        The tasks of a group come as ``"group.task"``. If FSDP has sharded the sigmas, they are
        gathered: every process has to ask.
        """
        own = self._read(Entries.sigmas)
        groups = {task: group.sigmas() for task, group in _tasks.groups(self.heads).items()}
        return _tasks.flattened(list(self), own, groups)

    def weights(self) -> dict[str, Tensor]:
        """Return the factor now multiplying each task's base loss, as :meth:`sigmas` does.

        Priorities are part of it.
        """
        groups = {
            task: {name: w * self.priorities.get(task, 1.0) for name, w in group.weights().items()}
            for task, group in _tasks.groups(self.heads).items()
        }
        return _tasks.flattened(list(self), self._read(Entries.weights), groups)

    def param_groups(self, lr: float | None = 1e-2) -> list[dict[str, Any]]:
        """Return the parameter groups that an optimizer needs to learn the sigmas.

        Their learning rate is their own: a log-variance wants percents a step, whatever the network
        wants. Their weight decay is 0: it would pull every sigma towards 1, and the weights with
        it. Meant for optimizers like Adam.

        Args:
            lr: Learning rate of the sigmas; ``None`` takes the optimizer's default.

        Returns:
            A list to be unpacked among the optimizer's groups, empty if nothing is learned.

        Example:
            >>> model, loss_fn = nn.Linear(3, 1), UncertaintyWeightedLoss({"depth": "laplace"})
            >>> groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
            >>> optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=1e-2)
            >>> loss_fn.check_optimizer(optimizer)
        """
        learned = {id(head.log_var) for _, head in self.learned_heads()}
        all_sigmas = {id(head.log_var) for _, head in _tasks.all_heads(self.heads)}
        group: dict[str, Any] = {
            "params": [p for p in self.parameters() if id(p) not in all_sigmas - learned],
            "weight_decay": 0.0,
        }
        if lr is not None:
            group["lr"] = lr
        return [group] if group["params"] else []

    def check_optimizer(self, *optimizers: Optimizer) -> None:
        """Raise unless the optimizers train every sigma that should learn, once, without decay.

        A sigma that is in no optimizer keeps its weight, and no other error tells you so.

        Raises:
            ValueError: If a sigma that is not frozen is in none of the optimizers, in two, in a
                group with weight decay, or does not require a gradient.
        """
        learning = {
            task: head.log_var
            for task, head in self.learned_heads()
            if head.log_var is not None and not head.frozen
        }
        check_optimizers(optimizers, learning)

    def learned_heads(self) -> Iterator[tuple[str, TaskHead]]:
        """Yield the heads whose sigma is a learned parameter, frozen or not, by task."""
        for task, entry in tasks_of(self.heads).items():
            if isinstance(entry, UncertaintyWeightedLoss):
                yield from ((f"{task}.{name}", head) for name, head in entry.learned_heads())
            elif entry.has_sigma and self.estimator == "learned":
                yield task, entry

    def reset_parameters(self) -> None:
        """Put every sigma back to its start; after ``to_empty`` this makes the loss whole again."""
        for entry in tasks_of(self.heads).values():
            entry.reset_parameters()
        self.scales.reset_parameters()
        self.constraint.reset_parameters()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the sigmas by task name; see :meth:`torch.nn.Module.load_state_dict`.

        Raises:
            RuntimeError: If ``strict`` and the tasks of the checkpoint are others: it names them.
                With ``strict=False`` the tasks in common are loaded and the others stay.
        """
        if strict:
            _tasks.check_checkpoint(self.state_dict(), state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def extra_repr(self) -> str:
        """Return the settings that differ from their defaults, for printing."""
        defaults = {"estimator": "learned", "form": "nll", "priorities": {}, "global_counts": False}
        return changed_settings(self, defaults)

    def __getitem__(self, task: str) -> "TaskHead | UncertaintyWeightedLoss":
        found: TaskHead | UncertaintyWeightedLoss = _tasks.task_of(self.heads, task)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(tasks_of(self.heads))

    def __len__(self) -> int:
        return len(tasks_of(self.heads))

    def __getstate__(self) -> dict[str, Any]:
        # Copies make the constants anew.
        return {**self.__dict__, "_entries_of": {}}

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
                if len(inputs[task]) > 1 and inputs[task][1] is not None:
                    head.fit_scale(*inputs[task])
        if self.training and torch.is_grad_enabled() and not torch.compiler.is_compiling():
            warn_if_graph_is_cut(inputs, summed, self._warned_of)
        if not own:
            return groups, None
        vector = joined(summed)
        entries = self._entries(own, vector)
        group = self.process_group if self.global_counts else False
        return groups, (entries, entries.measured(vector, counts, group))

    def _as_group(self, inputs: Sequence[Any], initialize: bool) -> Any:
        # A group is None where none of its tasks has labels, and so is each of them.
        nothing = dict.fromkeys(self)
        values = [nothing if v is None else v for v in inputs[:2]] + list(inputs[2:])
        return self.initialize_from(*values) if initialize else self(*values)

    def _weigh(self, entries: Entries, step: Measured) -> MultiTaskLoss:
        if self.training and self.scales.has_to_observe():
            group = False if self.global_counts else self.process_group
            is_joined = self.scales.start.is_pending and num_ranks(group) > 1
            observe = observe_outside_of_graphs if is_joined else observe_losses
            observe(self.scales, entries, self.constraint, step, group)
        log_vars = self.scales.in_graph(entries, self.constraint, step, training=self.training)
        return weigh_tasks(entries, step, log_vars)

    def _entries(self, own: Mapping[str, TaskHead], like: Tensor) -> Entries:
        if torch.compiler.is_compiling():
            return Entries(own, self.form, self.priorities, like).at_hand()
        key = like.device, like.dtype
        entries = self._entries_of.get(key)
        if entries is None or entries.settings != settings_of(own, self.priorities):
            entries = self._entries_of[key] = Entries(own, self.form, self.priorities, like)
        return entries.at_hand()

    def _read(self, function: Callable[[Entries, Tensor], Tensor]) -> dict[str, Tensor]:
        """Return a function of the log-variances of the tasks that are in no group."""
        own = own_heads(self.heads)
        if not own:
            return {}
        like = next((h.log_var for h in own.values() if h.log_var is not None), torch.zeros(()))
        entries = self._entries(own, like.new_empty((), dtype=torch.float32))
        with torch.no_grad():
            values = function(entries, self.scales.log_vars(entries, self.constraint))
        return dict(zip(own, entries.split(values), strict=True))

    def _freeze(self, tasks: Sequence[str], frozen: bool) -> None:
        for task in tasks or list(self):
            entry = self[task]
            if isinstance(entry, UncertaintyWeightedLoss):
                entry._freeze((), frozen)
            else:
                entry.freeze(frozen)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A checkpoint serves either estimator: running means that it lacks follow from its sigmas.
        key = prefix + "scales.running_losses"
        running = dict(self.scales.named_buffers()).get("running_losses")
        if running is None:
            state_dict.pop(key, None)
        elif any(name.startswith(prefix + "heads.") for name in state_dict):
            state_dict.setdefault(key, torch.full_like(running, math.nan))
        state_dict.pop(prefix + "num_forwards", None)  # of versions that had a warm-up
        self.scales.start = Start()
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
