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

from uncertainty_mtl._naming import HeadsByName
from uncertainty_mtl.forms import BaseLoss, PowerForm
from uncertainty_mtl.task_head import TaskHead

# What is computed here in place of a head: one that defines any of these itself has to be asked.
REPLACED = ("nll", "reduced", "bounded_log_var", "_log_var_bounds")

FEW = 32
"""Tasks up to which autograd is handed every loss and scale by itself, and joins none of them."""


class ReducedStep:
    """Weighs the reduced losses of heads that learn one scale each.

    Or those of a single head with a scale per channel, whose mean it takes.

    Args:
        heads: The heads of a loss.
    """

    def __init__(self, heads: HeadsByName) -> None:
        self._heads = heads
        self._plan = _plan(heads)

    def __call__(self, predictions: Any) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Return the total and each task's term; None unless every task has a plain loss."""
        # Compilers fuse the written-out form by themselves.
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return None
        if self._plan is None or not self._plan.holds():
            self._plan = _plan(self._heads)
        plan = self._plan
        if plan is None or (losses := plan.losses_in(predictions)) is None:
            return None
        scales: Sequence[Tensor] = plan.log_vars
        if len(losses) < len(scales) or len(scales) > FEW:
            losses, scales = [_joined(losses)], [torch.cat(list(scales))]
        total, *terms = _WeighedSum.apply(plan, len(losses), *losses, *scales)
        if plan.num_channels:
            terms = [total]
        elif losses[0].ndim:
            terms = terms[0].unbind()
        return total, dict(zip(plan.tasks, terms, strict=True))

    def last_bases(self) -> Iterator[tuple[str, BaseLoss]]:
        """Yield the losses of the last step that went this way, by task, detached."""
        if self._plan is None or self._plan.last_losses is None:
            return
        losses = self._plan.last_losses
        parts = (losses,) if self._plan.num_channels else losses.unbind()
        for task, loss in zip(self._plan.tasks, parts, strict=True):
            yield task, BaseLoss(loss, torch.ones_like(loss))


class _Plan:
    """What stays the same from step to step."""

    def __init__(self, tasks: Sequence[str], modules: dict[str, Any]) -> None:
        self.tasks = tasks
        self.modules = modules
        self.heads: list[TaskHead] = list(modules.values())
        self.settings = [(h.form, h.sigma_bounds, h.constant, True) for h in self.heads]
        self.log_vars = [head.log_var for head in self.heads]
        self.device = self.log_vars[0].device
        self.num_channels = self.heads[0].num_channels
        self.shape = torch.Size([] if self.num_channels is None else [self.num_channels])
        self.table = _Table.of(self.heads, self.device)
        self.last_losses: Tensor | None = None
        """Those of the last step, as a vector outside of any graph."""

    def holds(self) -> bool:
        """Return whether the heads are as they were."""
        rows = zip(self.modules.values(), self.heads, self.settings, self.log_vars, strict=True)
        for module, head, settings, log_var in rows:
            if (
                module is not head
                or (head.form, head.sigma_bounds, head.constant, head.training) != settings
                or head._parameters.get("log_var") is not log_var
            ):
                return False
        return self.log_vars[0].device == self.device

    def losses_in(self, predictions: Any) -> Sequence[Tensor] | None:
        """Return the losses in the order of the tasks, or all in one; None if one is unusual."""
        losses: Sequence[Any]
        num_tasks, shape = len(self.tasks), self.shape
        if type(predictions) is dict and len(predictions) == num_tasks:
            losses = [predictions.get(task) for task in self.tasks]
        elif type(predictions) in (list, tuple) and len(predictions) == num_tasks:
            losses = predictions
        elif type(predictions) is Tensor and self.num_channels is None:
            losses, shape = [predictions], torch.Size([num_tasks])
        else:
            return None
        is_in_graph, num_axes = False, len(shape)
        for loss in losses:
            if not (
                type(loss) is Tensor
                and loss.ndim == num_axes
                and loss.dtype is torch.float32
                and loss.device == self.device
            ):
                return None
            is_in_graph = is_in_graph or loss.requires_grad
        if not is_in_graph or losses[0].shape != shape:
            return None
        return losses

    def put_back(self, log_vars: Tensor) -> None:
        """Write the scales to the parameters, as :meth:`TaskHead.bounded_log_var` does."""
        lengths = [log_var.numel() for log_var in self.log_vars]
        torch._foreach_copy_(self.log_vars, torch.split(log_vars, lengths))


class _Table(NamedTuple):
    r"""The terms :math:`A e^{-ps} L + q s + r` and the bounds of :math:`s`, as vectors."""

    log_amplitude: Tensor
    power: Tensor
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
            [form.power for form in forms],
            [share * form.slope for form in forms],
            [share * head.constant for head in heads],
            low,
            high,
        ]
        table = cls(*torch.tensor(columns, device=device).unbind())
        return table if any(columns[3]) else table._replace(constant=None)

    def bounded(self, log_vars: Tensor) -> Tensor:
        return log_vars.clamp(self.low, self.high)

    def weigh(self, losses: Tensor, log_vars: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights, and the losses times them."""
        weights = torch.addcmul(self.log_amplitude, self.power, log_vars, value=-1).exp()
        return weights, weights * losses

    def slopes(self, weighted: Tensor) -> Tensor:
        """Return the derivative of the terms by the scales."""
        return torch.addcmul(self.slope, self.power, weighted, value=-1)


class _WeighedSum(torch.autograd.Function):
    """The sum of the terms, and the terms, of losses and scales.

    Both come as one vector ``(K,)``, and so do the terms then, or as K tensors of one element.
    """

    @staticmethod
    def forward(ctx: Any, plan: _Plan, num_losses: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        table = plan.table
        losses, log_vars = _joined(tensors[:num_losses]), _joined(tensors[num_losses:])
        bounded = table.bounded(log_vars)
        # Reading a value makes the host wait for a GPU, but a CPU has it at hand.
        if bounded.device.type != "cpu" or not torch.equal(bounded, log_vars):
            plan.put_back(bounded)
        plan.last_losses = losses.detach()
        ctx.table, ctx.num_losses, ctx.is_joined = table, num_losses, tensors[0].ndim > 0
        # Not saved, as the next forward may write to the parameters; their values of now are.
        ctx.scales, ctx.bounded = tensors[num_losses:], bounded
        ctx.save_for_backward(*tensors[:num_losses])
        ctx.set_materialize_grads(False)
        ctx.weights, ctx.weighted = table.weigh(losses, bounded)
        terms = torch.addcmul(ctx.weighted, table.slope, bounded)
        if table.constant is not None:
            terms += table.constant
        return terms.sum(), *((terms,) if ctx.is_joined else terms.unbind())

    @staticmethod
    def backward(ctx: Any, of_total: Any, *of_terms: Any) -> Any:
        table, weights, weighted = ctx.table, ctx.weights, ctx.weighted
        upstream = _upstream(of_total, of_terms, ctx.is_joined)
        if torch.is_grad_enabled():  # for a derivative of what is returned here
            log_vars = _joined(ctx.scales)
            # Moved, not clamped: the gradient does not end at the bounds.
            moved = log_vars + (ctx.bounded - log_vars).detach()
            weights, weighted = table.weigh(_joined(ctx.saved_tensors), moved)
        of_losses, of_scales = upstream * weights, upstream * table.slopes(weighted)
        if ctx.is_joined:
            return None, None, of_losses, of_scales
        return None, None, *of_losses.unbind(), *of_scales.split(1)

    @staticmethod
    def jvp(ctx: Any, _: None, __: None, *tangents: Any) -> tuple[Tensor, ...]:
        of_losses, of_scales = tangents[: ctx.num_losses], tangents[ctx.num_losses :]
        slopes = ctx.table.slopes(ctx.weighted)
        changes = torch.zeros_like(ctx.weights)
        for factor, parts in ((ctx.weights, of_losses), (slopes, of_scales)):
            given = [part for part in parts if part is not None]
            if given:
                zero = torch.zeros_like(given[0])
                changes = changes + factor * _joined([zero if p is None else p for p in parts])
        return changes.sum(), *((changes,) if ctx.is_joined else changes.unbind())


def _joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return what one tensor holds, or all of them, as a vector."""
    if len(tensors) == 1:
        return tensors[0].reshape(-1)
    return torch.cat(list(tensors)) if tensors[0].ndim else torch.stack(list(tensors))


def _upstream(of_total: Any, of_terms: Sequence[Any], is_joined: bool) -> Any:
    """Return the gradient by the terms: by each of them, and by their sum."""
    if all(gradient is None for gradient in of_terms):
        return of_total
    if is_joined:
        by_term = of_terms[0]
    else:
        zero = next(gradient for gradient in of_terms if gradient is not None).new_zeros(())
        by_term = torch.stack([zero if gradient is None else gradient for gradient in of_terms])
    return by_term if of_total is None else of_total + by_term


def _plan(heads: HeadsByName) -> _Plan | None:
    """Return a plan for these heads; None if the written-out form has to be asked."""
    modules: dict[str, Any] = heads._modules
    plain = all(_is_plain(head, is_alone=len(modules) == 1) for head in modules.values())
    return _Plan(list(heads._module_names), modules) if plain else None


def _is_plain(head: Any, *, is_alone: bool) -> bool:
    return (
        isinstance(head, TaskHead)
        and all(getattr(type(head), name) is getattr(TaskHead, name) for name in REPLACED)
        and type(head.form) is PowerForm
        and (head.num_channels is None or is_alone)
        and head.training
        and type(head._parameters.get("log_var")) is nn.Parameter
    )
