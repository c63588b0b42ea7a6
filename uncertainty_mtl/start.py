"""Watching sigmas get their first value: whether all have one by now, and whether it stays."""

import math

import torch
from torch import Tensor

from uncertainty_mtl.constraint import Constraint
from uncertainty_mtl.entries import Entries


class Start:
    """Reads values of a step rarely, in steps 1, 2, 4, 8, ..., until all sigmas have started.

    After that nothing is read, and no step waits for the device.
    """

    def __init__(self) -> None:
        self.is_pending = True
        self._num_steps = 0
        self._set_from: Tensor | None = None
        self._set_to: Tensor | None = None

    def watch(
        self,
        entries: Entries,
        constraint: Constraint,
        starts: Tensor,
        optimum: Tensor,
        before: Tensor,
    ) -> None:
        """Look at a step that has just set sigmas.

        Args:
            entries: The heads.
            constraint: What ties the sigmas together.
            starts: Which entries this step has set for the first time, bool.
            optimum: What it has set them to, not yet within their bounds.
            before: The log-variances before.

        Raises:
            RuntimeError: If what an earlier step had set was not there.
        """
        self._num_steps += 1
        is_look = self._num_steps & (self._num_steps - 1) == 0
        if self._set_from is None or self._set_to is None:
            self._set_from = self._set_to = torch.full_like(before, math.nan)
        elif is_look:
            _check_it_stayed(entries, self._set_from, self._set_to, before)
            self._set_to = torch.full_like(before, math.nan)
        self._set_from = torch.where(starts, before, self._set_from)
        self._set_to = torch.where(starts, constraint.within(entries, optimum), self._set_to)
        if is_look:
            constraint.warn_if_outside(entries, torch.where(starts, optimum, math.nan))
            # One more step after the last start, to see that it stayed.
            is_done = ((entries.counts() > 0) | ~entries.can_start).all() & ~starts.any()
            self.is_pending = not bool(is_done)


def _check_it_stayed(entries: Entries, before: Tensor, after: Tensor, now: Tensor) -> None:
    """Raise if a sigma is back where it was before it was set; nan is one that was not set.

    An optimizer's first steps from an optimum are small: they do not lead back all the way.
    """
    distance = (after - before).abs()
    is_lost = ((now - before).abs() < 0.25 * distance) & (distance > 0.5)
    if bool(is_lost.any()):
        pairs = zip(entries.tasks, entries.split(is_lost), strict=True)
        raise RuntimeError(
            "The sigmas that the first batch has set should be there in the next step. Found those "
            f"of {[task for task, lost in pairs if lost.any()]} back at their start: under FSDP a "
            "value that is written in the forward pass is lost. Keep sigmas out of the sharding, "
            "`fully_shard(module, ignored_params=set(loss_fn.parameters()))` (torch 2.7 or newer); "
            "or call `loss_fn.initialize_from` once, before training; or give the heads an "
            "`init_sigma`."
        )
