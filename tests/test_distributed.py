"""Two processes: sigma's gradient is synchronised, and a task absent on one rank stalls nobody."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uncertainty_mtl import UncertaintyWeightedLoss

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # torch < 2.6
    fully_shard = None

TASKS = {"a": "gaussian", "b": "laplace"}


class ModelWithLoss(nn.Module):
    """The documented pattern: what DDP wraps computes the loss, so it sees every parameter."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        self.loss_fn = UncertaintyWeightedLoss(TASKS, **options)

    def forward(self, x: Tensor, targets: Any, masks: Any = None) -> Tensor:
        """Return the total loss."""
        predictions = dict(zip(TASKS, self.model(x).unbind(1), strict=True))
        return self.loss_fn(predictions, targets, masks).total


def batch() -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
    targets = dict(zip(TASKS, (y * torch.tensor([1.0, 4.0])).unbind(1), strict=True))
    # Unequal on the two halves: 4 and 1 valid elements of one task, 2 and 0 of the other.
    masks = {
        "a": torch.tensor([1, 1, 1, 1, 0, 0, 1, 0]).bool(),
        "b": torch.tensor([0, 1, 0, 1, 0, 0, 0, 0]).bool(),
    }
    return x, targets, masks


def train(
    module: nn.Module, rows: slice, absent: str | None = None, masked: bool = False
) -> list[Tensor]:
    x, targets, masks = batch()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    totals = []
    for _ in range(5):
        optimizer.zero_grad()
        local = {task: None if task == absent else y[rows] for task, y in targets.items()}
        total = module(x[rows], local, {k: m[rows] for k, m in masks.items()} if masked else None)
        total.backward()
        optimizer.step()
        totals.append(total.detach())
    loss_fn = getattr(module, "module", module).loss_fn
    return [
        torch.stack(totals),
        *loss_fn.sigmas().values(),
        *(p.detach() for p in module.parameters()),
    ]


def local_counts(rank: int, absent: str | None = None) -> list[Tensor]:
    module = DistributedDataParallel(ModelWithLoss())
    # The mean of the two totals is not on every rank: only what is learned is compared.
    return train(module, rows_of(rank), absent if rank == 1 else None)[1:]


def global_counts(rank: int, estimator: str) -> list[Tensor]:
    module = ModelWithLoss(global_counts=True, estimator=estimator)
    module = DistributedDataParallel(module)
    # Rank 1 has no label of `b`, and says so with None.
    return train(module, rows_of(rank), "b" if rank == 1 else None, masked=True)


def sharded(rank: int) -> list[Tensor]:
    model, loss_fn = ModelWithLoss().model, UncertaintyWeightedLoss(TASKS)
    fully_shard(model)
    loss_fn = DistributedDataParallel(loss_fn)
    optimizer = torch.optim.SGD(
        [*model.parameters(), *loss_fn.parameters()], lr=0.05, foreach=False
    )
    x, targets, _ = batch()
    for _ in range(5):
        rows = rows_of(rank)
        predictions = dict(zip(TASKS, model(x[rows]).unbind(1), strict=True))
        optimizer.zero_grad()
        loss_fn(predictions, {task: y[rows] for task, y in targets.items()}).total.backward()
        optimizer.step()
    scales = [p.detach() for p in loss_fn.parameters()]
    return [*scales, *(p.detach().full_tensor() for p in model.parameters())]


def rows_of(rank: int) -> slice:
    return slice(4 * rank, 4 * rank + 4)


def work(rank: int, folder: Path, function: Any, *args: Any) -> None:
    # A file, not a port: nothing else on the machine can be listening on it.
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=2
    )
    torch.save([tensor.clone() for tensor in function(rank, *args)], folder / f"{rank}.pt")
    # Leave together: the first to go would take the store from the other.
    dist.barrier()
    dist.destroy_process_group()


def on_two_ranks(folder: Path, function: Any, *args: Any) -> list[list[Tensor]]:
    mp.spawn(work, (folder, function, *args), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_learn_what_one_learns_on_the_joined_batch(tmp_path):
    first, second = on_two_ranks(tmp_path, local_counts)
    alone = train(ModelWithLoss(), slice(0, 8))[1:]
    for a, b, c in zip(first, second, alone, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c)


def test_a_task_absent_on_one_rank_stalls_nobody_and_keeps_ranks_equal(tmp_path):
    first, second = on_two_ranks(tmp_path, local_counts, "b")
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a, b)
        assert a.isfinite().all()


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_global_counts_give_loss_gradients_and_sigmas_of_the_joined_batch(tmp_path, estimator):
    first, second = on_two_ranks(tmp_path, global_counts, estimator)
    alone = train(ModelWithLoss(estimator=estimator), slice(0, 8), masked=True)
    for a, b, c in zip(first, second, alone, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(a, c, rtol=1e-6, atol=1e-6)


def test_local_counts_would_be_biased():
    # What the option is for: the mean of means over halves is not the mean over the whole.
    whole, halves = ModelWithLoss(), [ModelWithLoss(), ModelWithLoss()]
    x, targets, masks = batch()
    expected = whole(x, targets, masks).item()
    parts = [
        half(x[r], {k: y[r] for k, y in targets.items()}, {k: m[r] for k, m in masks.items()})
        for half, r in zip(halves, (rows_of(0), rows_of(1)), strict=True)
    ]
    assert sum(part.item() for part in parts) / 2 != pytest.approx(expected, rel=0.05)


@pytest.mark.skipif(fully_shard is None, reason="FSDP2 is public since torch 2.6")
def test_a_sharded_model_trains_with_the_loss_beside_it(tmp_path):
    first, second = on_two_ranks(tmp_path, sharded)
    alone = ModelWithLoss()
    train(alone, slice(0, 8))
    expected = [*alone.loss_fn.parameters(), *alone.model.parameters()]
    for a, b, c in zip(first, second, expected, strict=True):
        assert torch.equal(a, b)
        torch.testing.assert_close(a, c.detach())


def test_global_counts_mean_nothing_without_a_process_group():
    torch.testing.assert_close(
        train(ModelWithLoss(global_counts=True), slice(0, 8), masked=True),
        train(ModelWithLoss(), slice(0, 8), masked=True),
    )
