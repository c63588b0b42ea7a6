"""Sums over all processes, for losses that are means over the joined batch."""

from typing import Literal, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from uncertainty_mtl.forms import BaseLoss

Group: TypeAlias = "torch.distributed.ProcessGroup | Literal[False] | None"
"""A process group, ``None`` for the default one, or ``False`` for this process by itself."""


def is_distributed() -> bool:
    """Return whether a process group was initialised."""
    return dist.is_available() and dist.is_initialized()


def num_ranks(group: Group) -> int:
    """Return how many processes the group has: 1 for a process outside of it, or without one."""
    if group is False or not is_distributed():
        return 1
    return max(1, dist.get_world_size(group))  # -1 on a process that is not in the group


def sum_over_ranks(base: BaseLoss, group: Group = None) -> BaseLoss:
    """Return errors and counts summed over all processes of a group, in one collective.

    The values are those of the joined batch on every rank. The local gradient is multiplied by the
    number of ranks, because DistributedDataParallel divides by it.
    """
    ranks = num_ranks(group)
    if ranks == 1:
        return base
    # float64, because sums over large maps and reduced losses share one tensor.
    joined = torch.stack([base.summed.detach().double(), base.num_valid.double()])
    dist.all_reduce(joined, group=None if group is False else group)
    summed, num_valid = joined.to(base.summed.dtype).unbind()
    local: Tensor = base.summed - base.summed.detach()
    return BaseLoss(summed + ranks * local, num_valid)
