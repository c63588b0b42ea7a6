"""The multi-task loss: one head per task, matched by name, and the sum of their likelihoods."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from uncertainty_mtl import estimators, forms
from uncertainty_mtl._checks import (
    check_choice,
    check_momentum,
)
from uncertainty_mtl._measure import measure_tasks, naming, reduced_losses
from uncertainty_mtl._naming import (
    HeadsByName,
    all_heads,
    check_options,
    entries,
    names_within,
    own_heads,
    tasks_in,
)
from uncertainty_mtl._reduced import ReducedStep
from uncertainty_mtl.collectives import sum_over_ranks
from uncertainty_mtl.constraint import UnitSum
from uncertainty_mtl.forms import BaseLoss
from uncertainty_mtl.heads import GaussianHead, LaplaceHead, ScaledSoftmaxHead
from uncertainty_mtl.task_head import TaskHead, changed_settings

LIKELIHOODS: dict[str, Callable[[], TaskHead]] = {
    "gaussian": GaussianHead,
    "laplace": LaplaceHead,
    "softmax": ScaledSoftmaxHead,
}
"""The heads that a name stands for, each with its default settings."""

# A task's value is None where it has no labels, and a mapping again where it is a group of tasks.
ByTask: TypeAlias = Mapping[str, Any]


class MultiTaskLoss(NamedTuple):
    """What :class:`UncertaintyWeightedLoss` returns.

    Attributes:
        total: The sum over tasks, 0-dim: call ``.backward()`` on it.
        tasks: Each task's negative log-likelihood, 0-dim, differentiable; they sum to ``total``.
    """

    total: Tensor
    tasks: dict[str, Tensor]


class UncertaintyWeightedLoss(nn.Module):
    r"""Sum of the tasks' negative log-likelihoods, each with a scale that is learned.

    .. math:: \mathcal{L} = \sum_k w(s_k)\, L_k + \tfrac12 s_k, \qquad s_k = \log \sigma_k^2,

    with the base loss :math:`L_k` (mean squared error, mean absolute error, cross-entropy) and
    the weight :math:`w` of each task's head. At its optimum each weight is :math:`c_k/L_k`, with
    :math:`c` = 1/2, 1 and 1/2: what is minimised is :math:`\sum_k c_k \log L_k`, which does not
    depend on the units of any task.

    The total may be negative, and no harm is done: a density may exceed 1.

    Args:
        heads: One head per task, by name: a :class:`TaskHead`, one of the names ``"gaussian"``,
            ``"laplace"`` and ``"softmax"``, or another ``UncertaintyWeightedLoss`` for a group of
            tasks, whose arguments and results are then mappings themselves. A group keeps the
            estimator, form and other options that it was built with.
        estimator: How the scales are found. ``"learned"``: by gradient, as parameters.
            ``"closed_form"``: as the optimum for a running mean of the base loss; ``log_var`` is
            then a buffer, under the same key of the ``state_dict``, and no optimizer is needed.
            As in batch norm the first batch sets the mean, evaluation mode leaves it alone, and
            every call in training mode counts: a closure that an optimizer calls several times
            in a step counts as several batches.
        momentum: Share of the newest batch in that running mean.
        form: ``"nll"`` for each head's likelihood, or a form found elsewhere, for comparison:
            ``"symmetric"`` (:math:`e^{-s} L + s`, optimum :math:`e^s = L`; the authors' notebook,
            MultiMAE), ``"paper"`` (:math:`\tfrac12 e^{-s} L + \tfrac12 s`, optimum :math:`L`, for
            absolute errors too; :math:`e^{-s} L + \tfrac12 s`, optimum :math:`2L`, for softmax),
            ``"libmtl"`` (:math:`\tfrac12 e^{-s} L + \tfrac12 s` for every task; LibMTL starts at
            :math:`s = -0.5`, which is ``init_sigma=exp(-0.25)``, TorchJD at 0) or
            ``"liebel_koerner"`` (:math:`L/(2p^2) + \log(1 + p^2)` with :math:`s = \log p^2`,
            optimum :math:`p^2 = (L + \sqrt{L^2 + 8L})/4`; AutomaticWeightedLoss). It is set on the
            heads, whose ``sigma`` and ``weight`` then follow it.
        constraint: ``"unit_sum"`` keeps the sum of the task weights at 1; see
            :class:`~uncertainty_mtl.constraint.UnitSum`.
        priorities: Factors on whole tasks, by task: sigma's optimum stays, the network sees the
            task ``priority`` times. Tasks that are left out have 1.
        warmup_steps: For how many training forwards every sigma stays at its start.
        global_counts: Whether means run over the valid elements of all processes, not of each:
            unequal counts then bias nothing. Every process has to call the loss, with ``None`` for
            tasks that it has no labels of. For gradients that are averaged over processes.
        share_heads: Whether one head may serve, and learn one scale for, several tasks.

    Raises:
        TypeError: If a head is something else.
        ValueError: If there is no task, a name is unknown or unusable, one head is given twice
            without ``share_heads``, or the options do not combine.

    Example:
        >>> loss_fn = UncertaintyWeightedLoss({"depth": LaplaceHead(), "normals": GaussianHead()})
        >>> predictions = {"depth": torch.zeros(2, 3), "normals": torch.zeros(2, 3)}
        >>> targets = {"depth": torch.ones(2, 3), "normals": torch.ones(2, 3)}
        >>> total, tasks = loss_fn(predictions, targets)
        >>> sorted((name, round(loss.item(), 4)) for name, loss in tasks.items())
        [('depth', 1.4142), ('normals', 0.5)]

        Losses computed elsewhere go in as they are:

        >>> loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "normals": "gaussian"})
        >>> mae, mse = torch.ones(2, requires_grad=True)
        >>> round(loss_fn({"depth": mae, "normals": mse}).total.item(), 4)
        1.9142

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics*, CVPR 2018.
    """

    num_forwards: Tensor

    def __init__(
        self,
        heads: Mapping[str, "TaskHead | UncertaintyWeightedLoss | str"],
        *,
        estimator: Literal["learned", "closed_form"] = "learned",
        momentum: float = 0.1,
        form: Literal["nll", "symmetric", "paper", "libmtl", "liebel_koerner"] = "nll",
        constraint: Literal["unit_sum"] | None = None,
        priorities: Mapping[str, float] | None = None,
        warmup_steps: int = 0,
        global_counts: bool = False,
        share_heads: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(heads, Mapping):
            raise TypeError(
                "`heads` should be a mapping from task name to head, such as {'depth': "
                f"LaplaceHead()}}. Found {type(heads).__name__}."
            )
        if not heads:
            raise ValueError("`heads` should hold at least one task. Found none.")
        check_choice("estimator", estimator, ("learned", "closed_form"))
        check_choice("form", form, forms.NAMES)
        check_choice("constraint", constraint, (None, "unit_sum"))
        check_momentum(momentum)
        modules = {task: _as_head(task, head) for task, head in heads.items()}
        self.heads = HeadsByName(modules, share_heads)

        self.estimator = estimator
        self.priorities = dict(priorities or {})
        self.warmup_steps = warmup_steps
        self.global_counts = global_counts
        self._warned_of_cut_graph = False
        # Empty after a reduced step, which has them and takes them apart only if asked.
        self._last_bases: dict[str, BaseLoss] = {}
        for task, head in own_heads(self.heads).items():
            naming(task, head.use_form, form)
            if estimator == "closed_form":
                naming(task, head.use_closed_form, momentum)
        self.constraint: UnitSum | None = None
        if constraint is not None:
            self.constraint = UnitSum(estimators.check_unit_sum(own_heads(self.heads)))
        if warmup_steps:
            self.register_buffer("num_forwards", torch.zeros((), dtype=torch.long))
        check_options(self.heads, constraint, self.priorities, warmup_steps)
        is_plain = estimator == "learned" and constraint is None and not warmup_steps
        self._reduced_step = ReducedStep(self.heads) if is_plain else None

    def forward(
        self,
        predictions: "ByTask | Sequence[Tensor | None] | Tensor",
        targets: ByTask | None = None,
        masks: ByTask | None = None,
    ) -> MultiTaskLoss:
        """Return the total and each task's negative log-likelihood.

        Args:
            predictions: What the network predicts, by task, in any order; for a task left out of
                ``targets`` its already reduced loss. Without ``targets`` all of them are reduced
                losses, and may come as a sequence or a stacked 1-D tensor in the order of the
                constructor.
            targets: The target of each task, by task. ``None`` for a task without labels in this
                step (for a reduced loss: ``None`` as the loss): it adds exactly 0, its scale and
                its prediction get a zero gradient, and the graph stays connected. The momentum of
                the optimizer may still move its scale.
            masks: Which elements are used, by task; tasks may be left out.

        Under ``torch.compile`` every pattern of ``None`` is a graph of its own; a mask that is
        all False does the same without compiling again.

        Raises:
            TypeError: If a value has another type than its head expects.
            ValueError: If the tasks are not exactly those of the constructor, or shapes do not fit.
        """
        if self._reduced_step is not None and targets is None and masks is None:
            plain = not (self.priorities or self.global_counts)
            reduced = self._reduced_step.weigh(predictions) if plain else None
            if reduced is not None:
                self._last_bases.clear()
                return MultiTaskLoss(*reduced)
        groups, bases = measure_tasks(self.heads, predictions, targets, masks)
        self._warn_if_graph_was_cut(predictions, targets)
        if self.global_counts:
            bases = sum_over_ranks(bases)
        self._last_bases = {t: BaseLoss(b.summed.detach(), b.num_valid) for t, b in bases.items()}
        log_vars = self._log_vars(bases)
        tasks = {}
        for task, entry in entries(self.heads).items():
            if isinstance(entry, TaskHead):
                nll = entry.nll(bases[task], log_vars[task])
            else:
                nll = groups[task].total
            tasks[task] = nll * self.priorities[task] if task in self.priorities else nll
        return MultiTaskLoss(torch.stack(list(tasks.values())).sum(), tasks)

    def initialize_from(
        self,
        predictions: "ByTask | Sequence[Tensor | None] | Tensor",
        targets: ByTask | None = None,
        masks: ByTask | None = None,
    ) -> None:
        """Set every sigma to its closed-form optimum for these predictions, or reduced losses.

        Call it like the loss itself, with the first batch, before training: a sigma that starts
        at 1 for a loss of 1e-3 needs thousands of steps of an optimizer to arrive. A task without
        labels keeps its sigma. An exact softmax takes the best temperature.

        Raises:
            TypeError, ValueError: As :meth:`forward`.
        """
        with torch.no_grad():
            _, bases = measure_tasks(self.heads, predictions, targets, masks, initialize=True)
            if self.global_counts:
                bases = sum_over_ranks(bases)
            estimators.initialize(own_heads(self.heads), self.constraint, bases)

    def freeze(self, *tasks: str) -> None:
        """Keep the sigmas of these tasks where they are; of all, if none is named.

        See :meth:`TaskHead.freeze`. A parameter that is frozen when DistributedDataParallel wraps
        it is not synchronised when it is learned again: freeze after wrapping.
        """
        self._freeze(tasks, True)

    def unfreeze(self, *tasks: str) -> None:
        """Let the sigmas of these tasks be estimated again; of all, if none is named."""
        self._freeze(tasks, False)

    def sigmas(self) -> dict[str, Tensor]:
        """Return each task's sigma, detached, without waiting for the device.

        The tasks of a group come as ``"group.task"``.
        """
        sigmas = {name: head.sigma for name, head in all_heads(self.heads)}
        for name, log_var in self._constrained_log_vars().items():
            sigmas[name] = torch.exp(0.5 * log_var).squeeze(0)
        return sigmas

    def weights(self) -> dict[str, Tensor]:
        """Return the factor now multiplying each task's base loss, as :meth:`sigmas` does.

        Priorities are part of it.
        """
        weights = {name: head.weight for name, head in all_heads(self.heads)}
        for name, log_var in self._constrained_log_vars().items():
            weights[name] = own_heads(self.heads)[name].weight_at(log_var).squeeze(0)
        for task, priority in self.priorities.items():
            for name in names_within(self.heads, task):
                weights[name] = weights[name] * priority
        return weights

    def base_losses(self) -> dict[str, Tensor]:
        """Return each task's mean base loss in the last forward, as :meth:`sigmas` does.

        nan where it had no labels; of a likelihood with its scale inside, the likelihood.
        """
        return {
            name: torch.where(base.num_valid > 0, base.mean(), torch.nan)
            for name, base in self._bases_of_last_forward()
        }

    def num_valid(self) -> dict[str, Tensor]:
        """Return how many valid elements each task had in the last forward, as :meth:`sigmas` does.

        Of all processes, with ``global_counts``; per channel, in a head with ``num_channels``; the
        sum of their weights, with ``class_weight``. An already reduced loss counts as one. Means
        over parts of a batch combine by these.
        """
        return {name: base.num_valid for name, base in self._bases_of_last_forward()}

    def param_groups(self, lr: float | None = None) -> list[dict[str, Any]]:
        """Return the parameter groups that an optimizer needs to learn the scales.

        Weight decay is 0 in them: it would pull every sigma towards 1, and the weights with it.

        Args:
            lr: Learning rate of the scales; ``None`` takes the optimizer's default.

        Returns:
            A list to be unpacked among the optimizer's groups, empty if nothing is learned.

        Example:
            >>> model, loss_fn = nn.Linear(3, 1), UncertaintyWeightedLoss({"depth": "laplace"})
            >>> groups = [{"params": model.parameters()}, *loss_fn.param_groups(lr=1e-2)]
            >>> optimizer = torch.optim.SGD(groups, lr=2.5e-3, weight_decay=1e-4)
            >>> loss_fn.check_optimizer(optimizer)
        """
        group: dict[str, Any] = {"params": list(self.parameters()), "weight_decay": 0.0}
        if lr is not None:
            group["lr"] = lr
        return [group] if group["params"] else []

    def check_optimizer(self, optimizer: Optimizer) -> None:
        """Raise unless the optimizer trains every learnable scale, and decays none.

        A scale that is in no group keeps its weight for ever, and nothing else would say so.

        Raises:
            ValueError: If a learnable ``log_var`` is in no group, or in one with weight decay.
        """
        decay = {
            id(parameter): group.get("weight_decay", 0)
            for group in optimizer.param_groups
            for parameter in group["params"]
        }
        learned = [
            (task, head.log_var)
            for task, head in all_heads(self.heads)
            if head.log_var.requires_grad
        ]
        absent = [task for task, log_var in learned if id(log_var) not in decay]
        decayed = [task for task, log_var in learned if decay.get(id(log_var), 0) != 0]
        if absent or decayed:
            raise ValueError(
                "The optimizer should hold the `log_var` of every task, without weight decay. Found"
                + (f" no `log_var` of {absent} in its groups" if absent else "")
                + (" and" if absent and decayed else "")
                + (f" weight decay on that of {decayed}" if decayed else "")
                + ". Build it from `[{'params': model.parameters()}, *loss_fn.param_groups()]`. "
                "Where the loss is part of the model, leave its parameters out of the first group."
            )

    def reset_parameters(self) -> None:
        """Put every sigma back to where it started, and begin a warm-up anew."""
        for _, head in all_heads(self.heads):
            head.reset_parameters()
        if self.warmup_steps:
            self.num_forwards.zero_()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the scales by task name; see :meth:`torch.nn.Module.load_state_dict`.

        Raises:
            RuntimeError: If ``strict`` and the tasks of the checkpoint are others: it names them.
                With ``strict=False`` the tasks in common are loaded and the others stay.
        """
        expected, found = tasks_in(self.state_dict()), tasks_in(state_dict)
        missing = [task for task in expected if task not in found]
        unexpected = [task for task in found if task not in expected]
        if strict and (missing or unexpected):
            renamed = len(missing) == len(unexpected) == 1
            raise RuntimeError(
                f"The checkpoint should hold the scales of {expected}. Found those of {found}; "
                f"missing: {missing}; unexpected: {unexpected}"
                + (f"; was {unexpected[0]!r} renamed to {missing[0]!r}?" if renamed else ".")
                + " Load with `strict=False` to keep the sigmas of the tasks in common."
            )
        return super().load_state_dict(state_dict, strict, assign)

    def extra_repr(self) -> str:
        """Return the settings that differ from their defaults, for printing."""
        defaults = {"estimator": "learned", "priorities": {}, "warmup_steps": 0}
        return changed_settings(self, {**defaults, "global_counts": False})

    def __getitem__(self, task: str) -> "TaskHead | UncertaintyWeightedLoss":
        heads: dict[str, TaskHead | UncertaintyWeightedLoss] = entries(self.heads)
        if task not in heads:
            within = [
                f"loss_fn[{group!r}]"
                for group, entry in heads.items()
                if isinstance(entry, UncertaintyWeightedLoss) and str(task).startswith(f"{group}.")
            ]
            raise ValueError(
                f"The tasks of this loss are {list(heads)}. Found {task!r}."
                + (f" A group has tasks of its own: ask `{within[0]}` for them." if within else "")
            )
        return heads[task]

    def __iter__(self) -> Iterator[str]:
        return iter(entries(self.heads))

    def __len__(self) -> int:
        return len(entries(self.heads))

    def _as_group(self, inputs: list[Any], initialize: bool) -> Any:
        # A group is None where none of its tasks has labels, and so is each of them.
        nothing = dict.fromkeys(entries(self.heads))
        inputs = [nothing if value is None else value for value in inputs[:2]] + inputs[2:]
        return self.initialize_from(*inputs) if initialize else self(*inputs)

    def _log_vars(self, bases: Mapping[str, BaseLoss]) -> dict[str, Tensor]:
        """Return the scales of this step, after what the estimator learns from it."""
        heads = own_heads(self.heads)
        is_closed_form = self.estimator == "closed_form"
        if not self.warmup_steps:
            if is_closed_form:
                estimators.observe(heads, bases)
            return estimators.scales(heads, self.constraint, bases, self.training)
        if self.training:
            self.num_forwards.add_(1)
        is_over = self.num_forwards > self.warmup_steps
        if is_closed_form:
            # It learns nothing from a batch without elements.
            begun = {t: BaseLoss(b.summed, b.num_valid * is_over) for t, b in bases.items()}
            estimators.observe(heads, begun)
        log_vars = estimators.scales(heads, self.constraint, bases, self.training)
        return {task: torch.where(is_over, s, s.detach()) for task, s in log_vars.items()}

    def _bases_of_last_forward(self) -> Iterator[tuple[str, BaseLoss]]:
        if not self._last_bases and self._reduced_step is not None:
            yield from self._reduced_step.last_bases()
        for task, entry in entries(self.heads).items():
            if isinstance(entry, UncertaintyWeightedLoss):
                yield from ((f"{task}.{name}", b) for name, b in entry._bases_of_last_forward())
            elif task in self._last_bases:
                yield task, self._last_bases[task]

    def _constrained_log_vars(self) -> dict[str, Tensor]:
        if self.constraint is None:
            return {}
        with torch.no_grad():
            return estimators.unit_sum(own_heads(self.heads), self.constraint)

    def _freeze(self, tasks: Sequence[str], frozen: bool) -> None:
        for task in tasks or entries(self.heads):
            entry = self[task]
            if isinstance(entry, UncertaintyWeightedLoss):
                entry._freeze((), frozen)
            else:
                entry.freeze(frozen)

    def _warn_if_graph_was_cut(self, predictions: Any, targets: Any) -> None:
        if (
            self._warned_of_cut_graph
            or torch.compiler.is_compiling()
            or not (self.training and torch.is_grad_enabled())
        ):
            return
        losses = reduced_losses(self.heads, predictions, targets)
        if losses and not any(loss.requires_grad for loss in losses):
            self._warned_of_cut_graph = True
            warnings.warn(
                "No reduced loss carries a gradient: only the sigmas will train. Pass the losses "
                "as they were computed; `.item()`, `.detach()` and `torch.tensor([a, b])` cut the "
                "graph.",
                stacklevel=4,
            )


def _as_head(task: str, head: object) -> "TaskHead | UncertaintyWeightedLoss":
    if isinstance(head, TaskHead | UncertaintyWeightedLoss):
        return head
    if isinstance(head, str):
        if head not in LIKELIHOODS:
            raise ValueError(
                f"The likelihood of task {task!r} should be one of {list(LIKELIHOODS)}, or a head. "
                f"Found {head!r}."
            )
        return LIKELIHOODS[head]()
    found = f"the class {head.__name__}" if isinstance(head, type) else type(head).__name__
    raise TypeError(
        f"The head of task {task!r} should be a TaskHead, an UncertaintyWeightedLoss (a group of "
        f"tasks) or one of {list(LIKELIHOODS)}. Found {found}."
        + (" Call it to build a head." if isinstance(head, type) else "")
    )
