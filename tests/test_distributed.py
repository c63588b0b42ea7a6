"""Two processes train one network and its sigmas as one process would, written in plain PyTorch."""

import math
from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Laplace, Normal, Poisson
from torch.nn.parallel import DistributedDataParallel

from tests.own_heads import PoissonHead
from tests.ranks import on_two_ranks
from uncertainty_mtl import GaussianHead, LaplaceHead, UncertaintyWeightedLoss

try:
    from torch.distributed.fsdp import fully_shard
except ImportError:  # torch < 2.6
    fully_shard = None

pytestmark = pytest.mark.slow
STEPS, LR = 5, 0.05
HEADS = {"gaussian": GaussianHead, "laplace": LaplaceHead, "poisson": PoissonHead}

Absent = Collection[tuple[int, int, str]]
"""Which labels are missing: step, rank and task."""

NLLS = {
    "gaussian": lambda f, y, s: -Normal(f, (s / 2).exp()).log_prob(y) - math.log(2 * math.pi) / 2,
    "laplace": lambda f, y, s: -Laplace(f, (s / 2).exp() / 2**0.5).log_prob(y) - math.log(2) / 2,
    "poisson": lambda f, y, s: -Poisson(f.exp()).log_prob(y),
}
ERRORS = {"gaussian": lambda r: r**2, "laplace": lambda r: r.abs(), "poisson": lambda r: r * 0}
OPTIMA = {
    "gaussian": lambda mse: mse.log(),
    "laplace": lambda mae: 2 * (math.sqrt(2) * mae).log(),
    "poisson": lambda _: torch.zeros(()),
}


class ModelWithLoss(nn.Module):
    """The documented pattern: what DDP wraps computes the loss, so it sees every parameter."""

    def __init__(self, kinds: dict[str, str], **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        heads = {task: HEADS[kind]() for task, kind in kinds.items()}
        self.loss_fn = UncertaintyWeightedLoss(heads, **options)

    def forward(self, x: Tensor, targets: Any, masks: Any = None) -> Tensor:
        """Return the total loss."""
        predictions = dict(zip(self.loss_fn, self.model(x).unbind(1), strict=True))
        return self.loss_fn(predictions, targets, masks).total


def batch() -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(8, 3, generator=generator), torch.randn(8, 2, generator=generator)
    # Whole numbers in task `a`, which may be counts.
    targets = {"a": y[:, 0].abs().mul(2).floor(), "b": 4 * y[:, 1]}
    # Unequal on the two halves: 4 and 1 valid elements of one task, 2 and 0 of the other.
    masks = {
        "a": torch.tensor([1, 1, 1, 1, 0, 0, 1, 0]).bool(),
        "b": torch.tensor([0, 1, 0, 1, 0, 0, 0, 0]).bool(),
    }
    return x, targets, masks


def rows_of(rank: int) -> slice:
    return slice(4 * rank, 4 * rank + 4)


def reference(
    kinds: dict[str, str],
    *,
    absent: Absent = (),
    masked: bool = False,
    joined: bool = False,
    estimator: str = "learned",
) -> dict[str, Tensor]:
    """Train in one process: means over both halves (``joined``), or the mean of both totals."""
    torch.manual_seed(0)
    model, (x, targets, masks) = nn.Linear(3, 2), batch()
    s = {task: torch.zeros((), requires_grad=True) for task in kinds}
    running: dict[str, Tensor] = {}
    totals = []
    for step in range(STEPS):
        predictions = dict(zip(kinds, model(x).unbind(1), strict=True))
        used = {task: (masks[task] if masked else torch.ones(8).bool()).clone() for task in kinds}
        for _, rank, task in (each for each in absent if each[0] == step):
            used[task][rows_of(rank)] = False
        for task, kind in kinds.items():
            errors = ERRORS[kind]((predictions[task] - targets[task])[used[task]].detach())
            if len(errors) and task not in running:
                running[task] = errors.mean()
                s[task].data = OPTIMA[kind](running[task])
            elif len(errors) and estimator == "closed_form":
                running[task] += 0.1 * (errors.mean() - running[task])
                s[task].data = OPTIMA[kind](running[task])
        nlls = {
            task: NLLS[k](predictions[task], targets[task], s[task]) for task, k in kinds.items()
        }
        halves = [slice(0, 8)] if joined else [rows_of(0), rows_of(1)]
        parts = [(nlls[task][half], used[task][half]) for half in halves for task in kinds]
        total = sum(nll[valid].mean() for nll, valid in parts if valid.any()) / len(halves)
        parameters = [*model.parameters(), *(s.values() if estimator == "learned" else ())]
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter -= LR * (0 if gradient is None else gradient)
        totals.append(total.detach())
    learned = {f"sigma of {t}": (s[t].detach() / 2).exp() for t in kinds if kinds[t] != "poisson"}
    weight, bias = (parameter.detach() for parameter in model.parameters())
    return {"totals": torch.stack(totals), "weight": weight, "bias": bias, **learned}


def train(
    rank: int,
    kinds: dict[str, str],
    absent: Absent = (),
    masked: bool = False,
    **options: Any,
) -> dict[str, Tensor]:
    module = ModelWithLoss(kinds, **options)
    wrapped = DistributedDataParallel(module)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    (x, targets, masks), rows, totals = batch(), rows_of(rank), []
    for step in range(STEPS):
        local = {
            task: None if (step, rank, task) in absent else y[rows] for task, y in targets.items()
        }
        optimizer.zero_grad()
        total = wrapped(x[rows], local, {k: m[rows] for k, m in masks.items()} if masked else None)
        total.backward()
        optimizer.step()
        totals.append(total.detach())
    sigmas = module.loss_fn.sigmas()
    learned = {f"sigma of {task}": sigma for task, sigma in sigmas.items() if not sigma.isnan()}
    weight, bias = (parameter.detach() for parameter in module.model.parameters())
    return {"totals": torch.stack(totals), "weight": weight, "bias": bias, **learned}


PAIR = {"a": "gaussian", "b": "laplace"}
COUNTS = {"a": "poisson", "b": "laplace"}
NEVER_ON_RANK_1 = [(step, 1, "b") for step in range(STEPS)]
LATE = [(0, 0, "b"), (0, 1, "b"), (1, 0, "b"), (2, 1, "b"), (3, 0, "b"), (3, 1, "b")]
GAPS = [(1, 1, "a"), (2, 0, "a"), (2, 1, "a"), (3, 0, "b")]

LOCAL_COUNTS = {
    "all labels": {"kinds": PAIR},
    "one rank has none": {"kinds": PAIR, "absent": NEVER_ON_RANK_1},
    "a late start": {"kinds": PAIR, "absent": LATE},
    "counts": {"kinds": COUNTS},
    "counts with gaps": {"kinds": COUNTS, "absent": GAPS},
}
# Rank 1 has no label of `b`, and says so with None; in one step nobody has one of `a`.
JOINED_GAPS = [*NEVER_ON_RANK_1, (2, 0, "a"), (2, 1, "a")]
GLOBAL_COUNTS = {
    f"{name}, {estimator}": {
        "kinds": kinds,
        "absent": JOINED_GAPS,
        "masked": True,
        "estimator": estimator,
    }
    for name, kinds in (("pair", PAIR), ("counts", COUNTS))
    for estimator in ("learned", "closed_form")
}


def train_all(rank: int) -> dict[str, dict[str, Tensor]]:
    found = {name: train(rank, **options) for name, options in LOCAL_COUNTS.items()}
    for name, options in GLOBAL_COUNTS.items():
        found[name] = train(rank, global_counts=True, **options)
    return found


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    # All in one pair of processes, as each takes seconds to start.
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), train_all)


@pytest.mark.parametrize("case", LOCAL_COUNTS)
def test_two_processes_learn_the_mean_of_what_each_would(trained, case):
    expected = reference(**LOCAL_COUNTS[case])
    totals = [on_rank[case]["totals"] for on_rank in trained]
    torch.testing.assert_close((totals[0] + totals[1]) / 2, expected["totals"])
    for on_rank, total in zip(trained, totals, strict=True):
        torch.testing.assert_close(on_rank[case], {**expected, "totals": total})


@pytest.mark.parametrize("case", GLOBAL_COUNTS)
def test_global_counts_give_loss_gradients_and_sigmas_of_the_joined_batch(trained, case):
    expected = reference(**GLOBAL_COUNTS[case], joined=True)
    for on_rank in trained:
        torch.testing.assert_close(on_rank[case], expected)


def test_local_counts_would_be_biased():
    # What the option is for: the mean of means over halves is not the mean over the whole.
    halves, whole = (reference(PAIR, masked=True, joined=joined) for joined in (False, True))
    assert halves["totals"][0].item() != pytest.approx(whole["totals"][0].item(), rel=0.05)


def test_global_counts_mean_nothing_without_a_process_group():
    module, (x, targets, masks) = ModelWithLoss(PAIR, global_counts=True), batch()
    total = module(x, targets, masks)
    expected = reference(PAIR, masked=True, joined=True)["totals"][0]
    torch.testing.assert_close(total.detach(), expected)


def sharded(rank: int) -> dict[str, Tensor]:
    module = ModelWithLoss(PAIR)
    fully_shard(module.model)
    loss_fn = DistributedDataParallel(module.loss_fn)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR, foreach=False)
    (x, targets, _), rows = batch(), rows_of(rank)
    for _ in range(STEPS):
        predictions = dict(zip(PAIR, module.model(x[rows]).unbind(1), strict=True))
        optimizer.zero_grad()
        loss_fn(predictions, {task: y[rows] for task, y in targets.items()}).total.backward()
        optimizer.step()
    weight, bias = (p.detach().full_tensor() for p in module.model.parameters())
    sigmas = {f"sigma of {task}": sigma for task, sigma in module.loss_fn.sigmas().items()}
    return {"weight": weight, "bias": bias, **sigmas}


@pytest.mark.skipif(fully_shard is None, reason="FSDP2 is public since torch 2.6")
def test_a_sharded_model_trains_with_the_loss_beside_it(tmp_path):
    expected = reference(PAIR)
    expected.pop("totals")
    for on_rank in on_two_ranks(tmp_path, sharded):
        torch.testing.assert_close(on_rank, expected)
