"""Two processes on this machine that talk through gloo, as two machines would."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

WORLD_SIZE = 2


def _work(rank: int, folder: Path, function: Callable[..., Any], args: Any) -> None:
    torch.set_num_threads(1)
    # A file, not a port: nothing else on the machine can be listening on it.
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder / 'store'}",
        rank=rank,
        world_size=WORLD_SIZE,
        # A process that waits for one that failed would wait for half an hour.
        timeout=timedelta(seconds=120),
    )
    torch.save(function(rank, *args), folder / f"{rank}.pt")
    # Leave together: the first to go would take the store from the other.
    dist.barrier()
    dist.destroy_process_group()


def on_two_ranks(folder: Path, function: Callable[..., Any], *args: Any) -> list[Any]:
    """Return what ``function(rank, *args)`` returns on each rank: tensors, numbers, dicts."""
    mp.spawn(_work, (folder, function, args), nprocs=WORLD_SIZE)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(WORLD_SIZE)]
