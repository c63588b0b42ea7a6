"""Constraints on the sigmas of all tasks: none, or weights that sum to one."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from uncertainty_mtl.entries import Entries, Step
from uncertainty_mtl.forms import PowerForm
from uncertainty_mtl.parameters import (
    KeepsDtype,
    ValuesByTask,
    drop_saved,
    forget,
    set_values,
    vector_of,
)

SMALLEST_SHARE = 1e-12


class Constraint(KeepsDtype, ABC):
    """A rule that the sigmas obey. Log-variances are vectors with one element per entry."""

    @abstractmethod
    def optimum(self, entries: Entries, losses: Tensor, known: Tensor) -> Tensor:
        """Return the best log-variances for fixed mean losses, not yet within their bounds.

        Args:
            entries: The heads.
            losses: Mean base losses.
            known: Bool: which entries have a loss. The sigmas of the others do not change.
        """

    @abstractmethod
    def within(self, entries: Entries, log_vars: Tensor) -> Tensor:
        """Return the nearest log-variances that the constraint allows, detached."""

    def started(self, entries: Entries, optimum: Tensor, moves: Tensor) -> Tensor:
        """Return the log-variances after some have moved to their optimum for the first time."""
        return torch.where(moves, self.within(entries, optimum), entries.log_vars().detach())

    @abstractmethod
    def in_graph(self, entries: Entries, step: Step, *, training: bool) -> Tensor:
        """Return the allowed log-variances of this step, connected to the parameters."""

    def warn_if_outside(self, entries: Entries, optimum: Tensor) -> None:
        """Warn of every optimum outside its bounds; nan means that there is no optimum."""

    def reset_parameters(self) -> None:
        """Forget the earlier steps."""

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        state_dict.pop(prefix + "last_log_weights", None)  # of older versions, by order
        # The values of the last step are optional, so that a checkpoint fits every constraint.
        if not hasattr(self, "last_log_vars"):
            drop_saved(state_dict, prefix + "last_log_vars")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Free(Constraint):
    """No constraint: every sigma is independent, within its own bounds."""

    def optimum(self, entries: Entries, losses: Tensor, known: Tensor) -> Tensor:
        """Return the optimum of each entry."""
        stored = entries.log_vars().detach()
        return torch.where(known, entries.form.optimal_log_var(losses), stored)

    def within(self, entries: Entries, log_vars: Tensor) -> Tensor:
        """Return the values within the bounds."""
        return log_vars.detach().clamp(entries.low, entries.high)

    def in_graph(self, entries: Entries, step: Step, *, training: bool) -> Tensor:
        """Return the parameters; in training they are first put within their bounds."""
        if not training:
            return entries.log_vars().clamp(entries.low, entries.high)
        entries.project()
        return entries.log_vars()

    def warn_if_outside(self, entries: Entries, optimum: Tensor) -> None:
        """Warn of every optimum outside its bounds; it reads values from the device."""
        outside = (optimum < entries.low) | (optimum > entries.high)
        if not bool(outside.any()):
            return
        parts = zip(entries.split(outside), entries.split(optimum), strict=True)
        for task, head, (where, log_var) in zip(entries.tasks, entries.heads, parts, strict=True):
            if where.any():
                warnings.warn(
                    f"The optimum of task {task!r} should lie within its `sigma_bounds`, "
                    f"{head.sigma_bounds}. Found sigma = {torch.exp(0.5 * log_var).tolist()} for "
                    "this loss: its weight will not reach the optimum. Give the head wider "
                    "`sigma_bounds`, or measure the loss in other units.",
                    stacklevel=10,  # the user's call of the loss
                )


class UnitSum(Constraint):
    r"""Keeps the sum of the K task weights at 1: :math:`\sum_k w_k = 1` at every step.

    The objective is still :math:`\sum_k w_k L_k - c_k \log w_k`, which is convex in :math:`w`.
    Under the constraint its optimum is

    .. math:: w_k = \frac{c_k}{L_k + \lambda},

    with the one :math:`\lambda` that makes the weights sum to 1. The step on the network no longer
    grows as the losses shrink, but the weights depend on units: a task measured in centimetres gets
    a smaller share than the same task in metres.

    A task keeps its share if no optimizer has moved its sigma since the last step, because it had
    no labels or is frozen. The others divide the rest. ``last_log_vars`` stores what the last step
    has written, so that the next one can tell which parameters have moved.
    The weights may leave ``sigma_bounds``, because a sum of 1 already bounds them.

    Args:
        tasks: The names of the modules of the tasks' heads.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.last_log_vars = ValuesByTask(dict.fromkeys(tasks, 1))

    def optimum(self, entries: Entries, losses: Tensor, known: Tensor) -> Tensor:
        r"""Return the joint optimum; a task without a loss counts as being at its own optimum.

        Newton's method finds the root of :math:`1/\sum_k w_k(\lambda) - 1`. The function is
        concave, so the iteration approaches the root from one side if it starts at the largest
        :math:`\lambda` for which some weight is 1.
        """
        stored = entries.log_vars().detach().clamp(entries.low, entries.high)
        implied = entries.form.loss_at_optimum(stored)
        losses = torch.where(known, losses, implied).double()
        losses = losses - losses.min()  # shifts the multiplier, avoids cancellation
        form = _power_form(entries)
        c = torch.as_tensor(form.slope / form.power).double()
        multiplier = (c - losses).max()
        for _ in range(6):  # five reach 1e-7 for losses over 24 orders of magnitude
            weights = c / (losses + multiplier)
            total, slope = weights.sum(), (weights.square() / c).sum()
            multiplier = multiplier + (total.square() - total) / slope
        log_weights = (c / (losses + multiplier)).log()
        optimum = _log_vars(entries, log_weights.to(stored.dtype))
        # A frozen task keeps its share, whatever its loss; `within` gives the rest to the others.
        moves = entries.unless_frozen(torch.ones_like(known))
        return torch.where(moves, optimum, entries.log_vars().detach())

    def within(self, entries: Entries, log_vars: Tensor) -> Tensor:
        """Return the log-variances, rescaled so that their weights sum to 1."""
        log_weights = _log_weights(entries, log_vars.detach())
        frozen = ~entries.unless_frozen(torch.ones_like(log_weights) > 0)
        # Compared as stored: float64 losses and compiled code round log-weights differently.
        last = vector_of(self.last_log_vars)
        kept = (log_vars.detach().to(last.dtype) == last) | frozen
        # In float64, because 1 minus a large share is a small difference of two numbers.
        weights = log_weights.double().clamp(-300, 300).exp()
        rest = 1 - torch.where(kept, weights, 0.0).sum()
        moved = torch.where(kept, 0.0, weights).sum()
        # If every task is kept, or the kept ones use up the sum, all tasks are scaled.
        scale = torch.where(kept, 1.0, rest / moved)
        usable = (moved > 0) & (rest > 1e-6)
        scale = torch.where(usable, scale, 1 / weights.sum())
        # Bounded below, so that every share can rise again within a few hundred steps.
        shares = (weights * scale).clamp(min=SMALLEST_SHARE)
        return _log_vars(entries, (shares / shares.sum()).log().to(log_vars.dtype))

    def started(self, entries: Entries, optimum: Tensor, moves: Tensor) -> Tensor:
        """Return the joint optimum of all tasks if one has moved, since each depends on all."""
        moves = moves.any() & entries.is_from_data
        return super().started(entries, optimum, moves)

    def in_graph(self, entries: Entries, step: Step, *, training: bool) -> Tensor:
        """Return log-variances whose weights sum to 1, with the gradient of that normalisation.

        In training the parameters themselves are set to these values, too.
        """
        log_vars = entries.log_vars()
        values = self.within(entries, log_vars)
        if training:
            entries.write(values)
            set_values(self.last_log_vars, values)
        # These have the allowed values, and the gradient of the parameters.
        log_weights = _log_weights(entries, values + (log_vars - log_vars.detach()))
        # Only the shares of labelled tasks change, so they are normalised among themselves. Minus
        # 1e4 gives a weight of 0 in any dtype; minus infinity would make the gradient nan.
        normaliser = torch.where(step.num_valid > 0, log_weights, -1e4).logsumexp(0)
        return _log_vars(entries, log_weights - (normaliser - normaliser.detach()))

    def reset_parameters(self) -> None:
        """Forget the shares of the last step."""
        forget(self.last_log_vars)


def _power_form(entries: Entries) -> PowerForm:
    return cast(PowerForm, entries.form)  # checked when the loss was built


def _log_weights(entries: Entries, log_vars: Tensor) -> Tensor:
    r"""Return :math:`\log A - ps`."""
    form = _power_form(entries)
    return torch.log(torch.as_tensor(form.amplitude)) - form.power * log_vars


def _log_vars(entries: Entries, log_weights: Tensor) -> Tensor:
    """Return the log-variances that have these log-weights."""
    form = _power_form(entries)
    return (torch.log(torch.as_tensor(form.amplitude)) - log_weights) / form.power
