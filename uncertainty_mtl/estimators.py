"""How sigmas are found: learned by gradient, or in closed form from a running mean.

===============  ==========================  =======================================
estimator        ``constraint=None``         ``constraint="unit_sum"``
===============  ==========================  =======================================
``learned``      every head and form         heads with one sigma and a power form
``closed_form``  heads that weigh an error   heads with one sigma and a power form
===============  ==========================  =======================================

A power form is every one but ``liebel_koerner``. Heads that hold their scale inside of the
likelihood (exact softmax, data-dependent noise) weigh no error.
"""

import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from uncertainty_mtl.collectives import Group
from uncertainty_mtl.constraint import Constraint
from uncertainty_mtl.entries import Entries, Measured
from uncertainty_mtl.start import Start
from uncertainty_mtl.task_head import KeepsDtype


class Estimator(KeepsDtype, ABC):
    """What a loss asks for the sigmas of a step, after it has shown the step's base losses."""

    def __init__(self) -> None:
        super().__init__()
        self.start = Start()

    def has_to_observe(self) -> bool:
        """Whether :meth:`observe` has something to do in the next training step."""
        return self.start.is_pending

    @abstractmethod
    def observe(
        self, entries: Entries, constraint: Constraint, step: Measured, group: Group
    ) -> None:
        """Take note of the base losses of a training step."""

    @abstractmethod
    def in_graph(
        self, entries: Entries, constraint: Constraint, step: Measured, *, training: bool
    ) -> Tensor:
        """Return the log-variances of a step, with the gradient that the parameters get."""

    @abstractmethod
    def log_vars(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return what the next forward would use, detached."""

    def initialize(
        self, entries: Entries, constraint: Constraint, step: Measured, group: Group
    ) -> None:
        """Set every sigma to its optimum for these base losses, where they are usable."""
        losses, usable = entries.usable_means(step, group)
        optimum = constraint.optimum(entries, losses, usable, entries.stored())
        constraint.warn_if_outside(entries, torch.where(usable, optimum, math.nan))
        counts = entries.counts()
        counts = torch.where(usable, counts.clamp(min=1), counts)
        entries.write(constraint.within(entries, optimum), counts)
        self.start = Start()

    def reset_parameters(self) -> None:
        """Forget what came before."""
        self.start = Start()


class Learned(Estimator):
    """Sigma is a parameter: the first usable loss sets it, then an optimizer moves it."""

    def observe(
        self, entries: Entries, constraint: Constraint, step: Measured, group: Group
    ) -> None:
        """Set the sigmas that have none yet to the optimum of this step's losses."""
        losses, usable = entries.usable_means(step, group)
        counts, stored = entries.counts(), entries.stored()
        starts = usable & (counts == 0)
        moves = starts & entries.is_from_data
        optimum = constraint.optimum(entries, losses, usable, stored)
        new = torch.where(moves, constraint.within(entries, optimum), stored)
        entries.write(new, counts + starts)
        if not torch.compiler.is_compiling():  # within a graph nothing is read
            self.start.watch(entries, constraint, moves, optimum, stored)

    def in_graph(
        self, entries: Entries, constraint: Constraint, step: Measured, *, training: bool
    ) -> Tensor:
        """Return the parameters as the constraint allows them."""
        return constraint.in_graph(entries, step, training=training)

    def log_vars(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return the parameters as the constraint allows them, detached."""
        return constraint.within(entries, entries.stored())


class ClosedForm(Estimator):
    """Sigma is the optimum for a running mean of the base loss; no optimizer moves it.

    As in batch norm the first batch sets the mean, evaluation leaves it alone, and every call in
    training counts. The parameter of each head follows, for checkpoints and ``head.sigma``; it gets
    a zero gradient, as DistributedDataParallel waits for one.

    Args:
        num_entries: How many entries the loss has.
        momentum: Share of the newest batch in the running mean.
    """

    running_losses: Tensor

    def __init__(self, num_entries: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        nothing = torch.full((num_entries,), math.nan, dtype=torch.float32)
        self.register_buffer("running_losses", nothing)

    def has_to_observe(self) -> bool:
        """Every step counts."""
        return True

    def observe(
        self, entries: Entries, constraint: Constraint, step: Measured, group: Group
    ) -> None:
        """Update the running means, and set the heads to their optimum."""
        # The first batch is joined over all processes; later ones, with `global_counts`.
        losses, usable = entries.usable_means(step, group if self.start.is_pending else False)
        usable = usable & entries.not_frozen()
        before, counts = self._running(entries), entries.counts()
        moved = torch.where(before.isnan(), losses, before + self.momentum * (losses - before))
        running = torch.where(usable, moved, before)
        optimum = constraint.optimum(entries, running, ~running.isnan(), entries.stored())
        entries.write(constraint.within(entries, optimum), counts + usable)
        self.running_losses.copy_(running)
        if self.start.is_pending and not torch.compiler.is_compiling():
            # What FSDP loses in the heads is still in the running means.
            stored = entries.stored()
            self.start.watch(entries, constraint, usable & (counts == 0), optimum, stored)

    def in_graph(
        self, entries: Entries, constraint: Constraint, step: Measured, *, training: bool
    ) -> Tensor:
        """Return the optimum, from which the parameters get a zero gradient."""
        log_vars = self.log_vars(entries, constraint)
        return torch.where(torch.ones_like(log_vars) > 0, log_vars, entries.log_vars())

    def log_vars(self, entries: Entries, constraint: Constraint) -> Tensor:
        """Return the optimum of the running means, detached."""
        running, stored = self._running(entries), entries.stored()
        optimum = constraint.optimum(entries, running, ~running.isnan(), stored)
        return constraint.within(entries, optimum)

    def initialize(
        self, entries: Entries, constraint: Constraint, step: Measured, group: Group
    ) -> None:
        """Let the running means begin with these base losses."""
        super().initialize(entries, constraint, step, group)
        losses, usable = entries.usable_means(step, group)
        usable = usable & entries.not_frozen()
        self.running_losses.copy_(torch.where(usable, losses, self.running_losses))

    def reset_parameters(self) -> None:
        """Forget the running means."""
        super().reset_parameters()
        nn.init.constant_(self.running_losses, math.nan)

    def _running(self, entries: Entries) -> Tensor:
        """Return the running means; of a head that has been set elsewhere, what its sigma implies.

        So a checkpoint of learned sigmas goes on in closed form.
        """
        stored = entries.stored().clamp(entries.low, entries.high)
        implied = torch.where(entries.counts() > 0, entries.form.loss_at_optimum(stored), math.nan)
        running = self.running_losses.to(implied.dtype)
        return torch.where(running.isnan(), implied, running)


def observe_losses(
    scales: Estimator, entries: Entries, constraint: Constraint, step: Measured, group: Group
) -> None:
    """Let the estimator take note of a training step."""
    with torch.no_grad():
        scales.observe(entries, constraint, step, group)


REASON = (
    "sigmas that start from data on several processes do so outside of the graph, in the first "
    "steps: call `loss_fn.initialize_from` before training, or give the heads an `init_sigma`, or "
    "compile without `fullgraph=True`"
)
# The reason has been an argument since torch 2.7.
_has_reason = "reason" in inspect.signature(torch.compiler.disable).parameters
observe_outside_of_graphs: Callable[..., None] = torch.compiler.disable(  # type: ignore[no-untyped-call]
    observe_losses, **({"reason": REASON} if _has_reason else {})
)
