"""On several ranks sigmas start together, at the optimum of what all ranks have measured."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Categorical
from torch.nn.parallel import DistributedDataParallel

from tests.ranks import on_two_ranks
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

pytestmark = pytest.mark.slow

KINDS = ("gaussian", "laplace", "softmax")
ESTIMATORS = ("learned", "closed_form")
TASKS = {"a": "gaussian", "b": "laplace"}


def leaf(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def sigmas_of(loss_fn: UncertaintyWeightedLoss) -> dict[str, list[float]]:
    return {task: sigma.reshape(-1).tolist() for task, sigma in loss_fn.sigmas().items()}


def residuals(rank: int) -> tuple[Tensor, Tensor]:
    """Return residuals and a mask: rank 0 has three elements, rank 1 has one."""
    values = torch.tensor([[1.0, 2.0, 4.0, 90.0], [8.0, 90.0, math.nan, 90.0]])[rank]
    return values, torch.tensor([[1, 1, 1, 0], [1, 0, 0, 0]])[rank].bool()


def predictions(rank: int, estimator: str) -> Any:
    loss_fn = UncertaintyWeightedLoss(TASKS, estimator=estimator)
    target, mask = residuals(rank)
    zeros = {task: torch.zeros(4, requires_grad=True) for task in TASKS}
    loss_fn(zeros, dict.fromkeys(TASKS, target), dict.fromkeys(TASKS, mask))
    return sigmas_of(loss_fn)


def one_rank_without_labels(rank: int, estimator: str) -> Any:
    loss_fn = UncertaintyWeightedLoss(TASKS, estimator=estimator)
    zeros = {task: torch.zeros(2, requires_grad=True) for task in TASKS}
    target = torch.tensor([3.0, 5.0])
    loss_fn(zeros, {"a": target if rank == 0 else None, "b": None if rank == 0 else target})
    return sigmas_of(loss_fn)


def reduced(rank: int, estimator: str) -> Any:
    loss_fn = UncertaintyWeightedLoss({kind: kind for kind in KINDS}, estimator=estimator)
    loss_fn({kind: leaf((2.0, 6.0)[rank]) for kind in KINDS})
    return sigmas_of(loss_fn)


def reduced_on_one_rank(rank: int, estimator: str) -> Any:
    # On rank 0 these losses cannot set a sigma.
    on_rank_0 = {"nan": math.nan, "inf": math.inf, "zero": 0.0, "negative": -1.0}
    loss_fn = UncertaintyWeightedLoss(
        {**dict.fromkeys(on_rank_0, "gaussian"), "none": "gaussian"}, estimator=estimator
    )
    on_rank = {task: leaf(value if rank == 0 else 6.0) for task, value in on_rank_0.items()}
    loss_fn({**on_rank, "none": None if rank == 0 else leaf(6.0)})
    return sigmas_of(loss_fn)


def channels(rank: int, estimator: str) -> Any:
    loss_fn = UncertaintyWeightedLoss({"c": GaussianHead(num_channels=3)}, estimator=estimator)
    # Three elements of channel 0 on rank 0 and one on rank 1; channel 1 on rank 1 only; channel 2
    # nowhere.
    target = torch.tensor([[2.0, 90.0, 90.0], [6.0, 3.0, 90.0]])[rank].expand(3, 3)
    mask = torch.zeros(3, 3, dtype=torch.bool)
    mask[: (3, 1)[rank], 0] = True
    mask[:, 1] = rank == 1
    loss_fn({"c": torch.zeros(3, 3, requires_grad=True)}, {"c": target}, {"c": mask})
    return sigmas_of(loss_fn)


def late(rank: int, estimator: str) -> Any:
    loss_fn, history = UncertaintyWeightedLoss(TASKS, estimator=estimator), []
    for step in range(6):
        # Task `b` has labels on rank 1 in step 2 only.
        has_b = rank == 1 and step == 2
        loss_fn({"a": leaf(4.0), "b": leaf(5.0) if has_b else None})
        history.append(sigmas_of(loss_fn)["b"][0])
    return history


def initialized(rank: int, estimator: str) -> Any:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # A start of their own, which `initialize_from` replaces.
            heads = {"a": GaussianHead(init_sigma=0.5), "b": LaplaceHead()}
            self.loss_fn = UncertaintyWeightedLoss(heads, estimator=estimator)
            self.layer = nn.Linear(1, 1)

        def forward(self, target: Tensor, mask: Tensor) -> Tensor:
            zeros = 0 * self.layer(torch.zeros(4, 1)).squeeze(1)
            return self.loss_fn(
                dict.fromkeys(TASKS, zeros),
                dict.fromkeys(TASKS, target),
                dict.fromkeys(TASKS, mask),
            ).total

    module = Model()
    wrapped = DistributedDataParallel(module, broadcast_buffers=False)
    target, mask = residuals(rank)
    module.loss_fn.initialize_from(
        dict.fromkeys(TASKS, torch.zeros(4)),
        dict.fromkeys(TASKS, target),
        dict.fromkeys(TASKS, mask),
    )
    first = sigmas_of(module.loss_fn)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        wrapped(target, mask).backward()
        optimizer.step()
    return {"first": first, "later": sigmas_of(module.loss_fn)}


def initialized_reduced(rank: int, estimator: str) -> Any:
    loss_fn = UncertaintyWeightedLoss(TASKS, estimator=estimator)
    loss_fn.initialize_from({"a": leaf((2.0, 6.0)[rank]), "b": None if rank == 0 else leaf(3.0)})
    return sigmas_of(loss_fn)


def by_itself(rank: int, estimator: str) -> Any:
    # One rank computes the loss twice, the other not at all: a collective would wait.
    loss_fn = UncertaintyWeightedLoss(TASKS, estimator=estimator, process_group=False)
    if rank == 0:
        loss_fn({"a": leaf(2.0), "b": leaf(3.0)})
        loss_fn({"a": leaf(2.0), "b": leaf(3.0)})
    else:
        loss_fn.initialize_from({"a": leaf(6.0), "b": leaf(7.0)})
    return sigmas_of(loss_fn)


def temperature(rank: int, _: str) -> Any:
    loss_fn = UncertaintyWeightedLoss({"s": ScaledSoftmaxHead(exact=True)})
    torch.manual_seed(rank)
    logits = 5 * torch.randn(4000, 5)
    labels = Categorical(logits=logits / 4).sample()
    loss_fn.initialize_from({"s": logits}, {"s": labels})
    return sigmas_of(loss_fn)


SCENARIOS: list[Callable[[int, str], Any]] = [
    predictions,
    one_rank_without_labels,
    reduced,
    reduced_on_one_rank,
    channels,
    late,
    initialized,
    initialized_reduced,
    by_itself,
    temperature,
]


def run_all(rank: int) -> dict[str, Any]:
    return {
        f"{scenario.__name__}, {estimator}": scenario(rank, estimator)
        for scenario in SCENARIOS
        for estimator in ESTIMATORS
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    # All in one pair of processes, as each takes seconds to start.
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), run_all)


# The valid residuals of both ranks are 1, 2, 4 and 8.
JOINED = {"a": [math.sqrt(85 / 4)], "b": [math.sqrt(2) * 15 / 4]}
EXPECTED = {
    "predictions": JOINED,
    "one_rank_without_labels": {"a": [math.sqrt(17)], "b": [math.sqrt(2) * 4]},
    # The mean of 2 and 6.
    "reduced": {"gaussian": [2.0], "laplace": [math.sqrt(2) * 4], "softmax": [math.sqrt(8)]},
    "reduced_on_one_rank": {
        task: [math.sqrt(6)] for task in ("nan", "inf", "zero", "negative", "none")
    },
    "channels": {"c": [math.sqrt((3 * 4 + 36) / 4), 3.0, 1.0]},
    "initialized_reduced": {"a": [2.0], "b": [math.sqrt(2) * 3]},
}


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("scenario", EXPECTED)
def test_sigmas_start_at_the_optimum_of_all_ranks(found, scenario, estimator):
    for on_rank in found:
        sigmas = on_rank[f"{scenario}, {estimator}"]
        assert sigmas.keys() == EXPECTED[scenario].keys()
        for task, sigma in sigmas.items():
            assert sigma == pytest.approx(EXPECTED[scenario][task], rel=1e-5), task


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_task_starts_on_all_ranks_when_one_has_its_first_label(found, estimator):
    optimum = math.sqrt(2) * 5
    for on_rank in found:
        history = on_rank[f"late, {estimator}"]
        assert history == pytest.approx([1, 1, optimum, optimum, optimum, optimum], rel=1e-5)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_initialize_from_joins_the_ranks_after_wrapping_too(found, estimator):
    for on_rank in found:
        sigmas = on_rank[f"initialized, {estimator}"]["first"]
        assert sigmas == {task: pytest.approx(JOINED[task], rel=1e-5) for task in TASKS}


def test_sigmas_that_were_initialized_together_stay_together(found):
    first, second = (on_rank["initialized, learned"]["later"] for on_rank in found)
    assert first == second
    # The gradient that both get is that of the mean of their own losses.
    assert first["a"] != pytest.approx(JOINED["a"], rel=1e-4)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_without_a_group_every_process_starts_by_itself(found, estimator):
    first, second = (on_rank[f"by_itself, {estimator}"] for on_rank in found)
    assert first["a"] == pytest.approx([math.sqrt(2)])
    assert first["b"] == pytest.approx([3 * math.sqrt(2)])
    assert second["a"] == pytest.approx([math.sqrt(6)])
    assert second["b"] == pytest.approx([7 * math.sqrt(2)])


def test_an_exact_softmax_is_initialized_to_one_temperature(found):
    first, second = (on_rank["temperature, learned"] for on_rank in found)
    assert first == second
    assert first["s"][0] ** 2 == pytest.approx(4, rel=0.1)
