"""A record of every task's sigma, weight and losses, step by step."""

import csv
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uncertainty_mtl._checks import check_count
from uncertainty_mtl._tasks import all_heads
from uncertainty_mtl.constraint import UnitSum
from uncertainty_mtl.loss import UncertaintyWeightedLoss
from uncertainty_mtl.result import MultiTaskLoss


class Row(NamedTuple):
    """What was recorded of one task at one step."""

    step: int
    task: str
    sigma: float
    weight: float
    base_loss: float
    """Mean base loss; nan where the task had no labels."""
    nll: float
    """Negative log-likelihood, priority included; nan for a task of a group."""


class SigmaHistory:
    """Records how every task's sigma, weight and losses change in training, for a table or a plot.

    No step waits for the device: values are collected as tensors and read together, every
    ``flush_every`` steps. A task with several channels is recorded by their mean. The tasks of a
    group are named ``"group.task"`` and have no negative log-likelihood of their own. The history
    warns once about sigmas that have not moved, and once about each sigma that is at its bound.

    Args:
        loss_fn: The loss to record.
        flush_every: Number of steps that are read at once.
        stuck_after: Warn if a learned sigma has not moved after this many recorded steps; ``None``
            turns this warning off.

    Example:
        >>> loss_fn = UncertaintyWeightedLoss({"depth": "laplace"})
        >>> history = SigmaHistory(loss_fn)
        >>> for step in range(2):
        ...     losses = loss_fn({"depth": torch.tensor(1.0, requires_grad=True)})
        ...     history.record(step, losses)
        >>> history.rows[0].task, history.rows[0].base_loss
        ('depth', 1.0)
    """

    def __init__(
        self,
        loss_fn: UncertaintyWeightedLoss,
        *,
        flush_every: int = 100,
        stuck_after: int | None = 1000,
    ) -> None:
        check_count("flush_every", flush_every)
        self.loss_fn = loss_fn
        self.flush_every = flush_every
        self.stuck_after = stuck_after
        self.listeners: list[Callable[[list[Row]], None]] = []
        """Called with every chunk of rows as it is read; see `uncertainty_mtl.integrations`."""
        self._rows: list[Row] = []
        self._pending: list[tuple[int, dict[str, list[Tensor]]]] = []
        self._first_sigmas: dict[str, float] = {}
        self._num_steps = 0
        self._warned = False
        self._warned_of_bounds: set[str] = set()

    @property
    def rows(self) -> list[Row]:
        """Everything recorded so far, one row for each step and task."""
        self.flush()
        return self._rows

    def record(self, step: int, losses: MultiTaskLoss) -> None:
        """Record one step, after the loss was computed.

        Call it before ``optimizer.step()`` to record the sigmas and weights that the loss used.

        Args:
            step: The number of the step in the rows.
            losses: What the loss returned.
        """
        sigmas, weights = self.loss_fn.sigmas(), self.loss_fn.weights()
        values = {
            task: [
                _scalar(sigmas[task]),
                _scalar(weights[task]),
                _scalar(losses.errors[task]),
                _scalar(losses.tasks[task]) if task in losses.tasks else torch.tensor(torch.nan),
            ]
            for task in sigmas
        }
        self._pending.append((step, values))
        if len(self._pending) >= self.flush_every:
            self.flush()

    def flush(self) -> None:
        """Read all pending values from the device, in one transfer."""
        if not self._pending:
            return
        flat = [v.float() for _, values in self._pending for four in values.values() for v in four]
        numbers = iter(torch.stack([v.to(flat[0].device) for v in flat]).tolist())
        rows = [
            Row(step, task, *(next(numbers) for _ in range(4)))
            for step, values in self._pending
            for task in values
        ]
        self._num_steps += len(self._pending)
        self._pending.clear()
        self._rows += rows
        for row in rows:
            self._first_sigmas.setdefault(row.task, row.sigma)
        self._warn_if_stuck(rows)
        self._warn_if_at_a_bound(rows)
        for listener in self.listeners:
            listener(rows)

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write all rows as a CSV file with a header; the file appears whole or not at all."""
        path = Path(path)
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(Row._fields)
            writer.writerows(self.rows)
        temporary.replace(path)

    def plot(self) -> Any:
        """Return a matplotlib figure of the curves: sigma, weight and base loss of every task.

        Raises:
            ImportError: If matplotlib is missing; the extra ``plot`` installs it.
        """
        from matplotlib.figure import Figure  # an extra, which only `plot` needs

        figure = Figure(figsize=(7.5, 2.8), layout="constrained")
        panels = {"sigma": "sigma", "weight": "weight", "base_loss": "base loss"}
        for axis, (field, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
            for task in dict.fromkeys(row.task for row in self.rows):
                rows = [row for row in self._rows if row.task == task]
                values = [getattr(row, field) for row in rows]
                axis.plot([row.step for row in rows], values, label=task)
            axis.set(title=title, xlabel="step", yscale="log")
        axis.legend()
        return figure

    def _warn_if_stuck(self, newest: list[Row]) -> None:
        if self._warned or self.stuck_after is None or self._num_steps < self.stuck_after:
            return
        learned = {name for name, head in self.loss_fn.learned_heads() if not head.frozen}
        last = {row.task: row.sigma for row in newest if row.task in learned}
        stuck = sorted(task for task, sigma in last.items() if sigma == self._first_sigmas[task])
        if stuck:
            self._warned = True
            warnings.warn(
                f"The sigma of {stuck} has not moved in {self._num_steps} steps. Is its `log_var` "
                "in the optimizer? Call `loss_fn.check_optimizer(optimizer)` to find out. The "
                "sigma of a task without labels does not move either.",
                stacklevel=4,
            )

    def _warn_if_at_a_bound(self, newest: list[Row]) -> None:
        if isinstance(self.loss_fn.constraint, UnitSum):  # whose weights may leave the bounds
            return
        for task, head in all_heads(self.loss_fn.heads):
            low, high = head.sigma_bounds
            sigmas = [row.sigma for row in newest if row.task == task]
            sits = all(sigma <= 1.001 * low or sigma >= 0.999 * high for sigma in sigmas)
            if sits and sigmas and head.log_var is not None and task not in self._warned_of_bounds:
                self._warned_of_bounds.add(task)
                warnings.warn(
                    f"The sigma of {task!r} is at a bound of its `sigma_bounds` {(low, high)}. "
                    "A loss that reaches 0, or is measured in very small or large units, drives it "
                    "there. Give the head wider bounds, or check whether the loss has gone to 0.",
                    stacklevel=4,
                )


def _scalar(value: Tensor) -> Tensor:
    # A copy: the caller may change the terms in place, and a captured graph writes over them.
    return value.detach().mean()
