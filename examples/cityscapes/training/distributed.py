"""Training on several processes at once, as `torchrun` starts them, or on one."""

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.order import Draw, TrainingOrder
from examples.common.device import pick_device
from examples.common.endings import may_speak
from examples.common.errors import InputError, OtherProcessError
from examples.common.torchrun import was_started_by_torchrun


@dataclass(frozen=True)
class Ranks:
    """This process, and those that it trains with."""

    device: torch.device
    index: int = 0
    count: int = 1
    control: "dist.ProcessGroup | None" = None
    """The group in which processes coordinate: gloo, as NCCL would make them wait for the GPU."""

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes."""
        return self.index == 0

    def wait(self) -> None:
        """Go on when all processes have come here."""
        if self.control is not None:
            dist.barrier(self.control)

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is set in any process."""
        return bool(self.sum(torch.tensor(float(flag))) > 0)

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over processes of a tensor in main memory."""
        if self.control is not None:
            dist.all_reduce(values, group=self.control)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """Return the tensors, in main memory and of equal shape, of all processes."""
        if self.control is None:
            return [values]
        gathered = [torch.empty_like(values) for _ in range(self.count)]
        dist.all_gather(gathered, values, group=self.control)
        return gathered

    def share(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of all processes by those of the first."""
        if self.control is not None:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Join the processes that `torchrun` has started; without it, be the only one."""
    where = pick_device(device)
    if not was_started_by_torchrun():
        yield Ranks(where)
        return
    if where.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", "0"))
        # Every process raises, not only those without a GPU, for which the others would wait.
        count = max(local + 1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        if count > torch.cuda.device_count():
            raise InputError(
                f"--nproc-per-node: should be at most {torch.cuda.device_count()}, the number of "
                f"GPUs; found {count}"
            )
        where = torch.device("cuda", local)
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
    try:
        control: Any = dist.new_group(backend="gloo")
        ranks = Ranks(where, dist.get_rank(), dist.get_world_size(), control)
        yield ranks
        ranks.wait()  # leave together: the first to go would cut the others off
    except OtherProcessError:
        raise
    except BaseException:
        may_speak()  # be the first to ask: once this process has left, the others fail as well
        raise
    finally:
        dist.destroy_process_group()


def images_per_part(config: TrainConfig, ranks: Ranks) -> int:
    """Return how many images one process puts through the network at once.

    Raises:
        InputError: If the batch cannot be divided, or leaves batch norm a single image.
    """
    size, rest = divmod(config.batch_size, config.accumulate * ranks.count)
    if rest:
        raise InputError(
            f"--batch-size: {config.batch_size} images cannot be shared equally by {ranks.count} "
            f"processes times --accumulate {config.accumulate}"
        )
    is_joint = ranks.device.type == "cuda" and ranks.count > 1  # SyncBatchNorm
    if size == 1 and not (is_joint or config.freeze_batch_norm):
        raise InputError(
            f"--batch-size: {config.batch_size} leaves each of {ranks.count} processes one image "
            "at a time, and batch norm cannot train on the pooled features of one"
        )
    return size


class RankOrder:
    """The share of one process in every batch, part by part.

    In each part, the shares of all processes together are what a single process would see.
    """

    def __init__(self, order: TrainingOrder, accumulate: int, images: int, ranks: Ranks) -> None:
        self.order, self.accumulate, self.images, self.ranks = order, accumulate, images, ranks

    def __len__(self) -> int:
        return len(self.order) * self.accumulate

    def __iter__(self) -> Iterator[list[Draw]]:
        for draws in self.order:
            for part in range(self.accumulate):
                first = (part * self.ranks.count + self.ranks.index) * self.images
                yield draws[first : first + self.images]


def distributed(module: nn.Module, ranks: Ranks) -> nn.Module:
    """Wrap what computes the loss, so that all processes average their gradients."""
    return module if ranks.count == 1 else DistributedDataParallel(module)


def joint_batch_norm(model: nn.Module, ranks: Ranks) -> nn.Module:
    """Let batch norm see the batch of all processes; on a CPU, each process sees only its own."""
    if ranks.count > 1 and ranks.device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model


def gradients_stay_here(module: nn.Module) -> AbstractContextManager[None]:
    """Leave the averaging of gradients to a later backward pass."""
    return module.no_sync() if isinstance(module, DistributedDataParallel) else nullcontext()
