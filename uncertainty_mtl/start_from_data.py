"""Checks whether all sigmas have got their first value, and whether it was kept."""

import math

import torch
from torch import Tensor

from uncertainty_mtl.collectives import is_distributed
from uncertainty_mtl.constraint import Constraint
from uncertainty_mtl.entries import Entries


class Start:
    """Tells when all sigmas have started, and raises if FSDP has lost their first values.

    It reads values only in steps 1, 2, 4, 8, ... until all sigmas have started. After that it reads
    nothing, and no step waits for the device. With several processes it also checks the first two
    steps after a start for lost values.
    """

    def __init__(self) -> None:
        self.is_pending = True
        self._num_steps = 0
        self._checks_left = 0
        self._before: Tensor | None = None
        self._after: Tensor | None = None
        self._optimum: Tensor | None = None
        self._is_lost: Tensor | None = None

    def watch(
        self,
        entries: Entries,
        constraint: Constraint,
        starts: Tensor,
        optimum: Tensor,
        before: Tensor,
    ) -> None:
        """Take note of a step that has just set sigmas.

        Args:
            entries: The heads.
            constraint: The constraint on their sigmas.
            starts: Which entries this step has set for the first time, bool.
            optimum: The values that it has set, not yet within their bounds.
            before: The log-variances before.
        """
        self._num_steps += 1
        optimum = torch.where(starts, optimum, math.nan)
        self._before, self._after = before, constraint.within(entries, optimum)
        # Include starts from steps whose values were not read.
        found = optimum if self._optimum is None else self._optimum
        self._optimum = torch.where(starts, optimum, found)
        if _is_power_of_two(self._num_steps) and not before.is_meta:
            constraint.warn_if_outside(entries, self._optimum)
            self._optimum = None
            is_done = (entries.counts() > 0) | ~entries.unless_frozen(entries.can_start)
            self.is_pending = not bool(is_done.all())
            self._checks_left = 2

    def check_that_it_stayed(self, entries: Entries) -> None:
        """Check, before a step begins, that the values of earlier steps are still there.

        Raises:
            RuntimeError: If sigmas have the values again that they had before they were set.
        """
        if self._before is None or self._after is None or not is_distributed():
            return
        distance = (self._after - self._before).abs()
        # An optimizer's first step from an optimum is too small to lead back.
        is_back = (entries.log_vars().detach() - self._before).abs() < 0.25 * distance
        is_lost = is_back & (distance > 0.5) & (entries.counts() > 0)
        self._is_lost = is_lost if self._is_lost is None else self._is_lost | is_lost
        if not self.is_pending:
            self._checks_left -= 1
            if self._checks_left == 0:
                self._before = self._after = None
        elif not _is_power_of_two(self._num_steps + 1):
            return
        if bool(self._is_lost.any()):
            pairs = zip(entries.tasks, entries.split(self._is_lost), strict=True)
            raise RuntimeError(
                "Sigmas that were set from losses should keep their values in the next step. Found "
                f"those of {[task for task, lost in pairs if lost.any()]} at their old values: "
                "FSDP loses what is written to gathered parameters, in forward and until "
                "`reshard()`. Call `loss_fn.initialize_from` before `fully_shard`, or give the "
                "heads an `init_sigma`. Or keep sigmas out of the sharding, with `fully_shard("
                "module, ignored_params=set(loss_fn.parameters()))` (torch 2.7 or newer), and "
                "average their gradients over the processes yourself."
            )


def _is_power_of_two(number: int) -> bool:
    return number & (number - 1) == 0
