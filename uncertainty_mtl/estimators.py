"""How sigmas are found: learned by gradient, in closed form from a running mean, or not at all.

===============  ==========================  ============================  =====================
estimator        ``constraint=None``         ``"unit_sum"``                ``"softmax"``
===============  ==========================  ============================  =====================
``learned``      every head and form         heads with one sigma and a    no
                                             power form
``closed_form``  heads that weigh an error,  heads with one sigma and a    as for ``"unit_sum"``
                 or have no sigma            power form
``fixed``        heads that weigh an error,  no                            no
                 or have no sigma
===============  ==========================  ============================  =====================

Combinations marked "no" raise in the constructor. All forms but ``liebel_koerner`` are power forms.
Heads whose scale is inside the likelihood (exact softmax, data-dependent noise) weigh no error.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor

from uncertainty_mtl.collectives import Group, sum_over_ranks
from uncertainty_mtl.constraint import Constraint
from uncertainty_mtl.entries import Entries, Step
from uncertainty_mtl.forms import BaseLoss, PowerForm
from uncertainty_mtl.parameters import (
    KeepsDtype,
    ValuesByTask,
    drop_saved,
    forget,
    set_values,
    vector_of,
)
from uncertainty_mtl.start_from_data import Start


class Estimator(KeepsDtype, ABC):
    """Decides the sigmas, and through them the weights.

    In a training step ``observe`` sees the losses, ``in_graph`` returns the log-variances, and
    ``weighed`` may set weights that do not follow from a sigma.
    """

    def __init__(self) -> None:
        super().__init__()
        self.start = Start()

    def has_to_observe(self) -> bool:
        """Return whether the next training step has to call :meth:`observe`."""
        return self.start.is_pending

    def check(self, entries: Entries) -> None:
        """Raise if a value that an earlier training step has set was lost."""

    @abstractmethod
    def observe(self, entries: Entries, constraint: Constraint, step: Step, group: Group) -> None:
        """Update sigmas or running means from the base losses of a training step."""

    @abstractmethod
    def in_graph(
        self, entries: Entries, constraint: Constraint, step: Step, *, training: bool
    ) -> Tensor:
        """Return the log-variances of a step, connected to the parameters that get a gradient."""

    def log_vars(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return the log-variances that the next forward would use, detached."""
        return constraint.within(entries, entries.log_vars())

    def weighed(self, entries: Entries, step: Step) -> Step:
        """Return the step with the weights that the estimator gives it."""
        return step

    def sigmas(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return the sigmas that the next forward would use."""
        return entries.sigmas(self.log_vars(entries, constraint))

    def weights(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return the factors on the base losses that the next forward would use."""
        return entries.weights(self.log_vars(entries, constraint))

    def initialize(
        self, entries: Entries, constraint: Constraint, step: Step, group: Group
    ) -> tuple[Tensor, Tensor]:
        """Set every sigma to its optimum for these base losses, where they are usable.

        Returns:
            The mean base losses of all processes, and where they have set a sigma.
        """
        losses, usable = entries.usable_means(step, group)
        optimum = constraint.optimum(entries, losses, usable)
        # Scales that heads have set in `fit_scale` are averaged over processes.
        num_valid = torch.where(entries.can_start, 0.0, step.num_valid)
        fitted = sum_over_ranks(BaseLoss(optimum * num_valid, num_valid), group)
        optimum = torch.where(fitted.num_valid > 0, fitted.mean(), optimum)
        counts = entries.counts()
        counts = torch.where(usable, counts.clamp(min=1), counts)
        before = entries.log_vars().detach()
        entries.write(constraint.within(entries, optimum), counts, inside=True)
        self.start = Start()
        usable = entries.unless_frozen(usable)
        self.start.watch(entries, constraint, usable, optimum, before)
        return losses, usable

    def reset_parameters(self) -> None:
        """Start again from the first batch."""
        self.start = Start()

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        self.start = Start()
        # Older versions saved one vector in the order of the tasks, which losses may not share.
        state_dict.pop(prefix + "running_losses", None)
        # Other estimators can load a checkpoint of the closed form, which holds the optimum.
        if not hasattr(self, "running_losses"):
            drop_saved(state_dict, prefix + "running_losses")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


class Learned(Estimator):
    """Sigma is a parameter: the first usable loss sets it, then an optimizer updates it."""

    def check(self, entries: Entries) -> None:
        """Raise if FSDP has lost what was written to the parameters."""
        self.start.check_that_it_stayed(entries)

    def observe(self, entries: Entries, constraint: Constraint, step: Step, group: Group) -> None:
        """Set every sigma that has not started yet to the optimum of this step's losses."""
        losses, usable = entries.usable_means(step, group)
        counts, stored = entries.counts(), entries.log_vars().detach()
        starts = entries.unless_frozen(usable & (counts == 0))
        moves = starts & entries.is_from_data
        optimum = constraint.optimum(entries, losses, usable)
        entries.write(constraint.started(entries, optimum, moves), counts + starts)
        if not torch.compiler.is_compiling():  # a compiled graph reads no values
            self.start.watch(entries, constraint, moves, optimum, stored)

    def in_graph(
        self, entries: Entries, constraint: Constraint, step: Step, *, training: bool
    ) -> Tensor:
        """Return the parameters as the constraint allows them."""
        return constraint.in_graph(entries, step, training=training)


class Fixed(Estimator):
    """The weights are constant: the power of their forms is 0, so that sigma has no effect."""

    def has_to_observe(self) -> bool:
        """Return False, because no step changes anything."""
        return False

    def observe(self, entries: Entries, constraint: Constraint, step: Step, group: Group) -> None:
        """Do nothing."""

    def in_graph(
        self, entries: Entries, constraint: Constraint, step: Step, *, training: bool
    ) -> Tensor:
        """Return the parameters, which get a zero gradient: DistributedDataParallel waits for one.

        They are clamped, because an infinite parameter would turn the weights into nan.
        """
        return entries.log_vars().clamp(entries.low, entries.high)

    def initialize(
        self, entries: Entries, constraint: Constraint, step: Step, group: Group
    ) -> tuple[Tensor, Tensor]:
        """Do nothing."""
        return step.losses, torch.zeros_like(entries.can_start)


class ClosedForm(Estimator):
    r"""Sigma is the optimum for a running mean of the base loss; no optimizer updates it.

    As in batch norm, the first batch sets the mean, every later call in training updates it, and
    evaluation does not. The parameter of each head is set to the optimum, for checkpoints and
    ``head.sigma``; it gets a zero gradient, because DistributedDataParallel waits for one. With
    sharded parameters (FSDP) only the running means and the loss's ``sigmas()`` are right.

    Args:
        sizes: How many entries each task has, by the name of its head's module.
        momentum: Share of the newest batch in the running mean.
        temperature: If given, the weights are :math:`\operatorname{softmax}(1/(L T))` of the
            running means :math:`L`, whatever sigma is.
    """

    def __init__(
        self, sizes: Mapping[str, int], momentum: float, temperature: float | None
    ) -> None:
        super().__init__()
        self.momentum, self.temperature = momentum, temperature
        self.running_losses = ValuesByTask(sizes)

    def has_to_observe(self) -> bool:
        """Return True, because every step updates the running means."""
        return True

    def observe(self, entries: Entries, constraint: Constraint, step: Step, group: Group) -> None:
        """Update the running means, and set the parameters to their optimum."""
        # The first batch is joined over all processes; later ones only with `global_counts`.
        losses, usable = entries.usable_means(step, group if self.start.is_pending else False)
        usable = entries.unless_frozen(usable)
        before, counts = self._running(entries), entries.counts()
        # Not `before + momentum * (losses - before)`, which cancels a small loss after a large one.
        moved = before.lerp(losses.to(before.dtype), self.momentum)
        moved = torch.where(before.isnan(), losses, moved)
        running = torch.where(usable, moved, before)
        optimum = constraint.optimum(entries, running, ~running.isnan())
        entries.write(constraint.within(entries, optimum), counts + usable)
        set_values(self.running_losses, running)
        if self.start.is_pending and not torch.compiler.is_compiling():
            # If FSDP loses values of the parameters, the running means still have them.
            starts, stored = usable & (counts == 0), entries.log_vars().detach()
            self.start.watch(entries, constraint, starts, optimum, stored)

    def in_graph(
        self, entries: Entries, constraint: Constraint, step: Step, *, training: bool
    ) -> Tensor:
        """Return the optimum, from which the parameters get a zero gradient."""
        parameters = entries.log_vars()
        log_vars = parameters.detach() if training else self.log_vars(entries, constraint)
        return torch.where(torch.ones_like(log_vars) > 0, log_vars, parameters)

    def log_vars(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return the optimum of the running means, detached."""
        running = self._running(entries)
        return constraint.within(entries, constraint.optimum(entries, running, ~running.isnan()))

    def weighed(self, entries: Entries, step: Step) -> Step:
        """Return the step with the softmax's weights, if there is a temperature."""
        if self.temperature is None:
            return step
        weights = self._softmax(entries) * (step.num_valid > 0)
        # Not `_replace`, which torch 2.4 cannot compile.
        return Step(step.losses, step.num_valid, PowerForm(weights, 0.0, 0.0), None, step.blank)

    def weights(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return the factors on the base losses."""
        if self.temperature is None:
            return super().weights(entries, constraint)
        return self._softmax(entries)

    def initialize(
        self, entries: Entries, constraint: Constraint, step: Step, group: Group
    ) -> tuple[Tensor, Tensor]:
        """Set the running means to these base losses."""
        losses, usable = super().initialize(entries, constraint, step, group)
        running = torch.where(usable, losses, vector_of(self.running_losses))
        set_values(self.running_losses, running)
        return losses, usable

    def reset_parameters(self) -> None:
        """Forget the running means."""
        super().reset_parameters()
        forget(self.running_losses)

    def _softmax(self, entries: Entries) -> Tensor:
        losses = self._running(entries)
        # Bounded, because a difference of infinities is nan, and so that their sum is finite. A
        # task without a known loss gets the average score, so that all weights are equal before
        # any data.
        scores = (1 / (losses * cast(float, self.temperature))).clamp(max=1e30)
        average = scores.nanmean().nan_to_num(0.0)
        return torch.where(losses.isnan(), average, scores).softmax(0)

    def _running(self, entries: Entries) -> Tensor:
        running = vector_of(self.running_losses)
        if not self.start.is_pending:
            return running
        # If a checkpoint of learned sigmas has set a head, its mean starts from that sigma.
        stored = entries.log_vars().detach().clamp(entries.low, entries.high)
        implied = torch.where(entries.counts() > 0, entries.form.loss_at_optimum(stored), math.nan)
        return torch.where(running.isnan(), implied, running)


def observe(
    estimator: Estimator, entries: Entries, constraint: Constraint, step: Step, group: Group
) -> None:
    """Call the estimator's ``observe`` without recording gradients."""
    with torch.no_grad():
        estimator.observe(entries, constraint, step, group)


REASON = (
    "Sigmas that start from data on several processes do so outside of the graph, in the first "
    "steps: call `loss_fn.initialize_from` before training, or give the heads an `init_sigma`, or "
    "compile without `fullgraph=True`."
)
# `torch.compiler.disable` takes a reason since torch 2.7.
_has_reason = "reason" in inspect.signature(torch.compiler.disable).parameters
observe_outside_of_graphs: Callable[..., None] = torch.compiler.disable(  # type: ignore[no-untyped-call]
    observe, **({"reason": REASON} if _has_reason else {})
)
