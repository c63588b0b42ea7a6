"""The multi-task loss: it combines the losses of several tasks and learns their weights."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import Optimizer

from uncertainty_mtl import _tasks
from uncertainty_mtl._checks import check_optimizers
from uncertainty_mtl._tasks import HeadsByName, tasks_of
from uncertainty_mtl.collectives import Group
from uncertainty_mtl.options import check_options
from uncertainty_mtl.result import MultiTaskLoss
from uncertainty_mtl.task_head import TaskHead, changed_settings
from uncertainty_mtl.weighed_tasks import ByTask, WeighedTasks


class UncertaintyWeightedLoss(WeighedTasks):
    r"""Combines several task losses into one and learns each one's weight.

    .. math:: \mathcal{L} = \sum_k w(s_k)\, L_k + \tfrac12 s_k, \qquad s_k = \log \sigma_k^2,

    where :math:`L_k` is the base loss of task k (mean squared error, mean absolute error or
    cross-entropy) and the weight :math:`w` follows from the task's head: its likelihood and its
    sigma, not a layer of the network. At the optimum each weight is :math:`c_k/L_k`, with :math:`c`
    = 1/2, 1 and 1/2 for these errors. So training minimises :math:`\sum_k c_k \log L_k`, whose
    optimum does not depend on units. The total may be negative, because a density may exceed 1.

    Args:
        heads: One head per task, by name: a :class:`TaskHead`, one of the names ``"gaussian"``,
            ``"laplace"``, ``"softmax"`` and ``"sigmoid"``, or another ``UncertaintyWeightedLoss``
            for a group of tasks, whose arguments and results are then mappings. The loss does not
            change its heads: form, estimator and constraint belong to the loss.
        estimator: ``"learned"``: each sigma is a parameter. The first usable loss (finite and above
            0) in training sets it, unless the head has an ``init_sigma``; an optimizer updates it
            from there. ``"closed_form"``: each sigma is the optimum for a running mean of the base
            loss, which every call in training mode updates; there is no optimizer. ``"fixed"``: the
            weights are constants.
        momentum: Share of the newest batch in the running mean of ``"closed_form"``.
        weights: For ``estimator="fixed"``: the weight of each task's mean base loss, by task. Tasks
            that are left out have 1.
        form: ``"nll"`` for each head's likelihood, or a form found elsewhere, for comparison:
            ``"symmetric"`` (:math:`e^{-s} L + s`, optimum :math:`e^s = L`; the authors' notebook,
            MultiMAE), ``"paper"`` (:math:`\tfrac12 e^{-s} L + \tfrac12 s`, optimum :math:`L`, for
            absolute errors too; :math:`e^{-s} L + \tfrac12 s`, optimum :math:`2L`, for softmax),
            ``"libmtl"`` (:math:`\tfrac12 e^{-s} L + \tfrac12 s` for every task; LibMTL starts at
            :math:`s = -0.5`, which is ``init_sigma=exp(-0.25)``, TorchJD at 0) or
            ``"liebel_koerner"`` (:math:`L/(2p^2) + \log(1 + p^2)` with :math:`s = \log p^2`,
            optimum :math:`p^2 = (L + \sqrt{L^2 + 8L})/4`; AutomaticWeightedLoss). ``head.weight``
            always reports the likelihood's weight; :meth:`weights` reports that of the form.
        constraint: ``"unit_sum"`` keeps the sum of the task weights at 1; see
            :class:`~uncertainty_mtl.constraint.UnitSum`. ``"softmax"``, in closed form only, weighs
            the base losses by :math:`\operatorname{softmax}(1/(L_k T))`, without a penalty. This is
            UW-SO of Kirchdorfer et al., who use ``momentum=1``.
        temperature: T of that softmax, in units of 1/loss: tune it to the units of the losses. A
            smaller T gives the task with the smallest loss a larger share.
        priorities: Factors on whole tasks, by task. A priority multiplies the task's gradient and
            does not change its best sigma. Tasks that are left out have 1.
        global_counts: Whether means run over the valid elements of all processes together, so that
            unequal counts cause no bias. Every process then has to call the loss, with ``None`` for
            tasks without labels, and gradients must be averaged, as DistributedDataParallel does.
        share_heads: Whether several tasks may use one head, and thereby one sigma.
        process_group: The processes that set the first sigmas together, and that ``global_counts``
            joins: ``None`` for the default group, ``False`` if this process computes the loss by
            itself, as in a pipeline.
        extra: What to do with predictions that belong to no task, such as a count in a model's
            dict of losses: ``"raise"`` an error, ``"ignore"`` them (in targets and masks, too),
            or ``"add"`` them, as scalar losses of weight 1, to the total and to ``tasks``.
        zero_is_missing: Whether a reduced loss of exactly 0 means, like ``None``, that the task has
            no labels: detectors return 0 for images without objects. True, or the names of tasks.

    Raises:
        TypeError: If the head of a task is none of the above.
        ValueError: If there is no task, a name is unknown or unusable, one head is given twice
            without ``share_heads``, or the options do not go together.

    Example:
        >>> from torch import nn
        >>> model = nn.Linear(4, 2)
        >>> loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "speed": "gaussian"})
        >>> groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
        >>> optimizer = torch.optim.AdamW(groups)
        >>> depth, speed = model(torch.ones(8, 4)).unbind(1)
        >>> targets = {"depth": depth.detach() + 20, "speed": speed.detach() + 0.1}
        >>> losses = loss_fn({"depth": depth, "speed": speed}, targets)
        >>> {task: round(w.item(), 2) for task, w in loss_fn.weights().items()}
        {'depth': 0.05, 'speed': 50.0}
        >>> losses.total.backward()  # the weights are 1 / MAE and 1 / (2 MSE)
        >>> optimizer.step()
        >>> mae, mse = torch.ones(2, requires_grad=True)
        >>> losses = loss_fn({"depth": mae, "speed": mse})  # losses computed elsewhere

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics*, CVPR 2018. Kirchdorfer et al., *Analytical Uncertainty-Based Loss
        Weighting in Multi-Task Learning*, GCPR 2024 (UW-O: ``estimator="closed_form"``,
        ``momentum=1``, ``form="symmetric"``; and UW-SO).
    """

    def __init__(
        self,
        heads: Mapping[str, "TaskHead | UncertaintyWeightedLoss | str"],
        *,
        estimator: Literal["learned", "closed_form", "fixed"] = "learned",
        momentum: float = 0.1,
        weights: Mapping[str, float] | None = None,
        form: Literal["nll", "symmetric", "paper", "libmtl", "liebel_koerner"] = "nll",
        constraint: Literal["unit_sum", "softmax"] | None = None,
        temperature: float | None = None,
        priorities: Mapping[str, float] | None = None,
        global_counts: bool = False,
        share_heads: bool = False,
        process_group: Group = None,
        extra: Literal["raise", "ignore", "add"] = "raise",
        zero_is_missing: bool | Collection[str] = False,
    ) -> None:
        options: dict[str, Any] = {
            "estimator": estimator,
            "momentum": momentum,
            "weights": weights,
            "form": form,
            "constraint": constraint,
            "temperature": temperature,
            "priorities": {} if priorities is None else priorities,
            "extra": extra,
            "zero_is_missing": zero_is_missing,
        }
        by_name = HeadsByName(heads, share_heads)
        check_options(by_name, **options)
        super().__init__(
            by_name, global_counts=global_counts, process_group=process_group, **options
        )

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

        ``torch.compile`` compiles once for every pattern of ``None``, but not for an empty mask.

        Raises:
            TypeError: If a value has another type than its head expects.
            ValueError: If the tasks are not exactly those of the constructor, or shapes do not fit.
            RuntimeError: If sigmas would have to be set within a transform of ``torch.func``, or if
                FSDP has discarded sigmas that were set. The message says what to do.
        """
        return self._weigh(predictions, targets, masks)

    def initialize_from(
        self,
        predictions: "ByTask | Sequence[Tensor | None] | Tensor",
        targets: ByTask | None = None,
        masks: ByTask | None = None,
    ) -> None:
        """Set every sigma to its closed-form optimum for these predictions, or reduced losses.

        Call it like the loss itself, on every process. A task keeps its sigma if it has no labels,
        is frozen, or has a loss that is nan, infinite, negative or 0. An exact softmax takes the
        best temperature. You rarely need it, as the first batch sets the sigmas. It is for other
        batches, heads with an ``init_sigma``, and sigmas that FSDP has sharded.

        Raises:
            TypeError, ValueError: As :meth:`forward`.
        """
        self._initialize(predictions, targets, masks)

    def freeze(self, *tasks: str) -> None:
        """Keep the sigmas of these tasks, or of all if none is named, at their values.

        It holds even if other code sets ``requires_grad``; see :meth:`TaskHead.freeze`.
        """
        self._freeze(tasks, True)

    def unfreeze(self, *tasks: str) -> None:
        """Let the sigmas of these tasks, or of all if none is named, change again."""
        self._freeze(tasks, False)

    def sigmas(self) -> dict[str, Tensor]:
        """Return each task's sigma, detached, without waiting for the device.

        Each is 0-dim, or ``(C,)`` with ``num_channels``, and nan if the head has no sigma.
        The tasks of a group are named ``"group.task"``. If FSDP has sharded the sigmas, this
        gathers them, and every process has to call it.
        """
        return self._by_task("sigmas")

    def weights(self) -> dict[str, Tensor]:
        """Return the factor that now multiplies each task's base loss, priorities included.

        Keys, shapes and processes are as for :meth:`sigmas`.
        """
        weights = self._by_task("weights")
        for task, priority in self.priorities.items():
            if isinstance(group := self[task], UncertaintyWeightedLoss):  # it does not know its own
                weights |= {f"{task}.{name}": w * priority for name, w in group.weights().items()}
        return weights

    def param_groups(self, lr: float | None = 1e-2) -> list[dict[str, Any]]:
        """Return the parameter groups that an optimizer needs to learn the sigmas.

        The sigmas get their own learning rate, since a log-variance should change by about 0.01 a
        step whatever the network's rate is, and no weight decay, which would pull every sigma
        towards 1. The default is meant for optimizers like Adam.

        Args:
            lr: Learning rate of the sigmas; ``None`` takes the optimizer's default.

        Returns:
            A list to unpack among the optimizer's groups; empty if nothing is learned.

        Example:
            >>> model = torch.nn.Linear(3, 1)
            >>> loss_fn = UncertaintyWeightedLoss({"depth": "laplace"})
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
        """Raise an error unless the optimizers train every sigma once and without weight decay.

        If a sigma is in no optimizer, its weight never changes, and no other error tells you so.

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
        """Yield the heads whose sigma is a learned parameter, frozen or not."""
        for task, entry in tasks_of(self.heads).items():
            if isinstance(entry, UncertaintyWeightedLoss):
                yield from ((f"{task}.{name}", head) for name, head in entry.learned_heads())
            elif entry.log_var is not None and self.estimator == "learned":
                yield task, entry

    def reset_parameters(self) -> None:
        """Reset every sigma to its initial value; call it after ``to_empty``, too."""
        for entry in tasks_of(self.heads).values():
            entry.reset_parameters()
        self.scales.reset_parameters()
        self.constraint.reset_parameters()

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load the sigmas by task name; see :meth:`torch.nn.Module.load_state_dict`.

        Raises:
            RuntimeError: If ``strict`` and the checkpoint holds other tasks: the message names
                them. ``strict=False`` loads the tasks in common and leaves the others unchanged.
        """
        if strict:
            _tasks.check_checkpoint(self.state_dict(), state_dict)
        return super().load_state_dict(state_dict, strict, assign)

    def extra_repr(self) -> str:
        """Return the settings that differ from their defaults, for printing."""
        defaults = {"estimator": "learned", "form": "nll", "priorities": {}, "global_counts": False}
        return changed_settings(self, defaults)

    def _freeze(self, tasks: Sequence[str], frozen: bool) -> None:
        for task in tasks or list(self):
            entry = _tasks.task_of(self.heads, task)
            if isinstance(entry, TaskHead):
                entry.freeze(frozen)
            else:
                entry._freeze((), frozen)
