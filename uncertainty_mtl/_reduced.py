"""The quick way through a training step on already reduced losses: all tasks as one vector.

Written out task by task, as :mod:`uncertainty_mtl.loss` does in every other case, a step is some
twenty operations per task on tensors of one element, and Python and autograd take far longer over
them than the arithmetic does. What comes out here is the same, derivatives of any order included.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.compiler import is_compiling

from uncertainty_mtl._naming import HeadsByName
from uncertainty_mtl.forms import BaseLoss, PowerForm
from uncertainty_mtl.task_head import TaskHead

FEW = 32
"""Scales of which Python reads the values faster than PyTorch compares them."""

# What is computed here in place of a head: one that defines any of these itself has to be asked.
REPLACED = ("nll", "reduced", "bounded_log_var", "_log_var_bounds")
# What a plan is made from, looked up in the heads themselves in every step.
SETTINGS = ("form", "sigma_bounds", "constant")
FLOAT = torch.float32


class ReducedStep:
    """Weighs the reduced losses of heads that learn one scale each.

    Or those of a single head with a scale per channel, whose mean it takes.

    Args:
        heads: The heads of a loss.
    """

    def __init__(self, heads: HeadsByName) -> None:
        self._heads = heads
        self._plan = _plan(heads)
        self._last: tuple[Sequence[str], int | None, Tensor] | None = None

    def weigh(self, predictions: Any) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Return the total and each task's term; None unless every task has a plain loss."""
        if is_compiling():  # A compiler fuses the written-out form by itself.
            return None
        if self._plan is None or not self._plan.holds():
            self._plan = _plan(self._heads)
        plan = self._plan
        if plan is None or (losses := plan.losses_in(predictions)) is None:
            return None
        total, terms = _WeighedSum.apply(plan, losses, *plan.log_vars)
        tasks = (total,) if plan.num_channels else terms.unbind()
        self._last = plan.tasks, plan.num_channels, losses.detach()
        return total, dict(zip(plan.tasks, tasks, strict=True))

    def __getstate__(self) -> dict[str, Any]:
        # A plan looks into the dictionaries of its heads: its copy would look into copies of those,
        # in which nothing ever changes.
        return {**vars(self), "_plan": None}

    def last_bases(self) -> Iterator[tuple[str, BaseLoss]]:
        """Yield the losses of the last step that went this way, by task, detached."""
        if self._last is None:
            return
        tasks, num_channels, losses = self._last
        for task, loss in zip(tasks, [losses] if num_channels else losses.unbind(), strict=True):
            yield task, BaseLoss(loss, torch.ones_like(loss))


class _Plan:
    """What stays the same from step to step."""

    def __init__(self, tasks: Sequence[str], modules: dict[str, Any]) -> None:
        self.tasks = tasks
        self.modules = modules
        self.heads: list[TaskHead] = list(modules.values())
        self.log_vars = [head.log_var for head in self.heads]
        # Dictionaries are read faster than attributes of heads of several classes in turn.
        self.rows = [(vars(h), h.form, h.sigma_bounds, h.constant, h.log_var) for h in self.heads]
        self.device = self.log_vars[0].device
        self.num_channels = self.heads[0].num_channels
        self.shape = torch.Size([] if self.num_channels is None else [self.num_channels])
        self.vector_shape = self.shape or torch.Size([len(tasks)])
        self.table = _Table.of(self.heads, self.device)
        # Reading values makes the host wait for a GPU, but a CPU has them at hand.
        self.reads_values = self.device.type == "cpu" and self.vector_shape.numel() <= FEW
        # The nodes that fill `.grad`: autograd makes them anew in every step unless they are held.
        # On a GPU each belongs to the stream on which it was made, which need not stay the same.
        learned = [s for s in self.log_vars if s.requires_grad and self.device.type == "cpu"]
        self.held = [get_gradient_edge(log_var).node for log_var in learned]

    def holds(self) -> bool:
        """Return whether the heads are as they were."""
        for head, form, sigma_bounds, constant, log_var in self.rows:
            if (
                head["_parameters"].get("log_var") is not log_var
                or head["form"] is not form
                or head["sigma_bounds"] is not sigma_bounds
                or head["constant"] is not constant
                or not head["training"]
            ):
                return False
        return list(self.modules.values()) == self.heads and log_var.device == self.device

    def losses_in(self, predictions: Any) -> Tensor | None:
        """Return the losses as a vector in the order of the tasks; None if one is unusual."""
        losses: Any
        num_tasks, shape = len(self.tasks), self.shape
        if type(predictions) is dict and len(predictions) == num_tasks:
            losses = list(map(predictions.get, self.tasks))
        elif type(predictions) in (list, tuple) and len(predictions) == num_tasks:
            losses = predictions
        elif type(predictions) is Tensor and self.num_channels is None:
            losses, shape = [predictions], torch.Size([num_tasks])
        else:
            return None
        for loss in losses:
            if type(loss) is not Tensor or loss.dtype is not FLOAT:
                return None
        if shape:
            vector = losses[0]
        else:
            try:
                vector = torch.stack(losses)
            except RuntimeError:  # Of other shapes, or devices: an error that the other way names.
                return None
        if vector.shape != self.vector_shape or vector.device != self.device:
            return None
        return vector if vector.requires_grad else None

    def bounded(self, log_vars: Tensor) -> Tensor:
        """Return all scales within their bounds, as :meth:`TaskHead.bounded_log_var` does."""
        table = self.table
        if self.reads_values:
            values: list[float] = log_vars.tolist()
            low, high = table.narrowest
            if low <= min(values) and max(values) <= high:
                return log_vars
        bounded = log_vars.clamp(table.low, table.high)
        if self.device.type != "cpu" or not torch.equal(bounded, log_vars):
            torch._foreach_copy_(self.log_vars, self.apart(bounded))
        return bounded

    def apart(self, joined: Tensor) -> tuple[Tensor, ...]:
        """Return a vector of all scales in the shapes of the parameters."""
        return (joined,) if len(self.log_vars) == 1 else joined.unsqueeze(1).unbind()


class _Table(NamedTuple):
    r"""The terms :math:`A e^{-ps} L + q s + r` and the bounds of :math:`s`, as vectors."""

    narrowest: tuple[float, float]
    log_amplitude: Tensor
    minus_power: Tensor
    slope: Tensor
    constant: Tensor | None
    low: Tensor
    high: Tensor

    @classmethod
    def of(cls, heads: Sequence[TaskHead], device: torch.device) -> "_Table":
        # The mean over the channels of a head is a sum of terms, each divided by their number.
        share = 1 / (heads[0].num_channels or 1)
        # A form of the kind that `_plan` lets through.
        forms: list[Any] = [head.form for head in heads]
        low, high = zip(*(head._log_var_bounds() for head in heads), strict=True)
        columns = [
            [math.log(share * form.amplitude) for form in forms],
            [-form.power for form in forms],
            [share * form.slope for form in forms],
            [share * head.constant for head in heads],
            low,
            high,
        ]
        vectors = torch.tensor(columns, device=device).unbind()
        narrowest = max(vectors[4].tolist()), min(vectors[5].tolist())  # as float32 has them
        table = cls(narrowest, *vectors)
        return table if any(columns[3]) else table._replace(constant=None)

    def weigh(self, losses: Tensor, log_vars: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights, and the losses times them."""
        weights = torch.addcmul(self.log_amplitude, self.minus_power, log_vars).exp_()
        return weights, weights * losses

    def slopes(self, weighted: Tensor) -> Tensor:
        """Return the derivative of the terms by the scales."""
        return torch.addcmul(self.slope, self.minus_power, weighted)


class _WeighedSum(torch.autograd.Function):
    """The sum of the terms, and the terms, of losses ``(K,)`` and the scales of the heads."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, losses: Tensor, *scales: Tensor) -> tuple[Tensor, Tensor]:
        table = plan.table
        # A copy, as the next forward may write to the parameters; and joined here, as autograd
        # takes twice as long over it.
        bounded = plan.bounded(torch.cat(scales))
        weights, weighted = table.weigh(losses, bounded)
        ctx.set_materialize_grads(False)
        # Not by `save_for_backward`: only a second derivative asks for the losses themselves, and
        # saving them takes longer than the exponentials.
        ctx.kept = plan, losses, losses._version, scales, bounded, weights, weighted
        terms = torch.addcmul(weighted, table.slope, bounded)
        if table.constant is not None:
            terms += table.constant
        return terms.sum(), terms

    @staticmethod
    def backward(ctx: Any, of_total: Any, of_terms: Any) -> Any:
        plan, losses, version, scales, bounded, weights, weighted = ctx.kept
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            if losses._version != version:
                raise RuntimeError(
                    "The second derivative of a multi-task loss needs the losses as they were "
                    "weighed. Found that they were changed in place since: weigh a clone of them."
                )
            # Moved, not clamped: the gradient does not end at the bounds.
            log_vars = torch.cat(scales)
            moved = log_vars + (bounded - log_vars).detach()
            weights, weighted = plan.table.weigh(losses, moved)
        if of_total is None or of_terms is None:
            upstream = of_total if of_terms is None else of_terms
        else:
            upstream = of_total + of_terms
        of_scales = upstream * plan.table.slopes(weighted)
        return None, upstream * weights, *plan.apart(of_scales)

    @staticmethod
    def jvp(ctx: Any, _: None, losses: Any, *scales: Any) -> tuple[Tensor, Tensor]:
        plan, _, _, _, bounded, weights, weighted = ctx.kept
        changes = torch.zeros_like(weights)
        if losses is not None:
            changes = changes + weights * losses
        if any(scale is not None for scale in scales):
            zeros = plan.apart(torch.zeros_like(bounded))
            moved = [z if s is None else s for s, z in zip(scales, zeros, strict=True)]
            changes = changes + plan.table.slopes(weighted) * torch.cat(moved)
        return changes.sum(), changes


def _plan(heads: HeadsByName) -> _Plan | None:
    """Return a plan for these heads; None if the written-out form has to be asked."""
    modules: dict[str, Any] = heads._modules
    plain = all(_is_plain(head, is_alone=len(modules) == 1) for head in modules.values())
    return _Plan(list(heads._module_names), modules) if plain else None


def _is_plain(head: Any, *, is_alone: bool) -> bool:
    return (
        isinstance(head, TaskHead)
        and all(getattr(type(head), name) is getattr(TaskHead, name) for name in REPLACED)
        and vars(head).keys() >= set(SETTINGS)
        and type(head.form) is PowerForm
        and (head.num_channels is None or is_alone)
        and head.training
        and type(head._parameters.get("log_var")) is nn.Parameter
    )
