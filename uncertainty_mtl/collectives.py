"""Sums over all processes, for losses whose mean runs over the joined batch."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from uncertainty_mtl.forms import BaseLoss


def sum_over_ranks(bases: Mapping[str, BaseLoss]) -> dict[str, BaseLoss]:
    """Return each task's error and count summed over all processes, in one collective.

    The values are those of the joined batch on every rank. The gradient is that of the local error
    times the number of ranks, as DistributedDataParallel then averages gradients over them. Without
    a process group the bases come back as they are.
    """
    if not (bases and dist.is_available() and dist.is_initialized()):
        return dict(bases)
    parts = [part.reshape(-1) for base in bases.values() for part in base]
    # float64, as every task's numbers travel in one tensor; they are few.
    summed = torch.cat([part.detach().double() for part in parts])
    dist.all_reduce(summed)
    totals = iter(torch.split(summed, [part.numel() for part in parts]))
    return {
        task: BaseLoss(
            _with_gradient_of(next(totals), base.summed),
            next(totals).reshape(base.num_valid.shape).to(base.num_valid.dtype),
        )
        for task, base in bases.items()
    }


def _with_gradient_of(value: Tensor, local: Tensor) -> Tensor:
    value = value.reshape(local.shape).to(local.dtype)
    return value + dist.get_world_size() * (local - local.detach())
