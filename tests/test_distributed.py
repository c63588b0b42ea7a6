"""Two processes: sigma's gradient is synchronised, and a task absent on one rank stalls nobody."""

from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uncertainty_mtl import UncertaintyWeightedLoss

TASKS = {"a": "gaussian", "b": "laplace"}


class ModelWithLoss(nn.Module):
    """The documented pattern: what DDP wraps computes the loss, so it sees every parameter."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.loss_fn = UncertaintyWeightedLoss(TASKS)

    def forward(self, x: Tensor, targets: dict[str, Tensor | None]) -> Tensor:
        """Return the total loss."""
        predictions = dict(zip(TASKS, self.model(x).unbind(1), strict=True))
        return self.loss_fn(predictions, targets).total


def batch() -> tuple[Tensor, dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
    return x, dict(zip(TASKS, (y * torch.tensor([1.0, 4.0])).unbind(1), strict=True))


def train(module: nn.Module, rows: slice, absent: str | None) -> list[Tensor]:
    x, targets = batch()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(5):
        optimizer.zero_grad()
        local = {task: None if task == absent else y[rows] for task, y in targets.items()}
        module(x[rows], local).backward()
        optimizer.step()
    return [parameter.detach().clone() for parameter in module.parameters()]


def work(rank: int, folder: Path, absent: str | None) -> None:
    # A file, not a port: nothing else on the machine can be listening on it.
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    rows = slice(4 * rank, 4 * rank + 4)
    parameters = train(
        DistributedDataParallel(ModelWithLoss()), rows, absent if rank == 1 else None
    )
    torch.save(parameters, folder / f"{rank}.pt")
    # Leave together: the first to go would take the store from the other.
    dist.barrier()
    dist.destroy_process_group()


def run_two(folder: Path, absent: str | None) -> list[list[Tensor]]:
    mp.spawn(work, (folder, absent), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_learn_what_one_learns_on_the_joined_batch(tmp_path):
    first, second = run_two(tmp_path, absent=None)
    alone = train(ModelWithLoss(), slice(0, 8), absent=None)
    for a, b, c in zip(first, second, alone, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c)


def test_a_task_absent_on_one_rank_stalls_nobody_and_keeps_ranks_equal(tmp_path):
    first, second = run_two(tmp_path, absent="b")
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()
