"""Freezing on several ranks: DDP decides, when it wraps a module, which gradients it waits for."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.ranks import on_two_ranks
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

pytestmark = [
    pytest.mark.slow,
    # DDP says so of every module that could do without `find_unused_parameters`.
    pytest.mark.filterwarnings("ignore:find_unused_parameters=True was specified"),
]
STEPS = 6


class ModelWithLoss(nn.Module):
    """Two tasks, and the loss as part of what DDP wraps."""

    def __init__(self, estimator: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(3, 2)
        heads = {"a": GaussianHead(init_sigma=2.0), "b": "laplace"}
        # In closed form the ranks hold the same running means only if they join every batch.
        self.loss_fn = UncertaintyWeightedLoss(
            heads, estimator=estimator, global_counts=estimator == "closed_form"
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the total loss; the targets are zero."""
        a, b = self.model(x).unbind(1)
        return self.loss_fn({"a": a, "b": b}, {"a": torch.zeros(8), "b": torch.zeros(8)}).total


def train(freeze_in: int | None, unfreeze_in: int | None, estimator: str, **options: Any) -> Any:
    """Return sigma after every step and what stopped the training; -1 is before wrapping."""
    module = ModelWithLoss(estimator)
    if freeze_in == -1:
        module.loss_fn.freeze("a")
    wrapped = DistributedDataParallel(module, **options)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    torch.manual_seed(1 + torch.distributed.get_rank())
    sigmas, others, error = [], [], ""
    for step in range(STEPS):
        if step == freeze_in:
            module.loss_fn.freeze("a")
        if step == unfreeze_in:
            module.loss_fn.unfreeze("a")
        optimizer.zero_grad()
        try:
            wrapped(torch.randn(8, 3)).backward()
        except RuntimeError as stop:
            error = str(stop)
            break
        optimizer.step()
        sigmas.append(module.loss_fn["a"].sigma.item())
        others.append(module.loss_fn["b"].sigma.item())
    return {"a": sigmas, "b": others, "error": error}


ESTIMATORS = ("learned", "closed_form")
OPTIONS: dict[str, Any] = {
    "before wrapping": {"freeze_in": -1, "unfreeze_in": None},
    "after wrapping": {"freeze_in": 2, "unfreeze_in": None},
    "after wrapping, unused parameters allowed": {
        "freeze_in": 2,
        "unfreeze_in": None,
        "find_unused_parameters": True,
    },
    "for two steps, unused parameters allowed": {
        "freeze_in": 2,
        "unfreeze_in": 4,
        "find_unused_parameters": True,
    },
}


def train_all(rank: int) -> dict[str, Any]:
    return {
        f"{name}, {estimator}": train(estimator=estimator, **options)
        for name, options in OPTIONS.items()
        for estimator in ESTIMATORS
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), train_all)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_frozen_before_wrapping_a_sigma_stays_and_the_others_agree(trained, estimator):
    first, second = (on_rank[f"before wrapping, {estimator}"] for on_rank in trained)
    assert first["a"] == second["a"] == pytest.approx([2.0] * STEPS)
    assert first["b"] == second["b"]
    assert len(set(first["b"])) == STEPS


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_frozen_after_wrapping_ddp_stops_the_second_step(trained, estimator):
    for on_rank in trained:
        found = on_rank[f"after wrapping, {estimator}"]
        assert len(found["a"]) == 3
        assert "Expected to have finished reduction" in found["error"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_ddp_that_allows_unused_parameters_goes_on(trained, estimator):
    name = f"after wrapping, unused parameters allowed, {estimator}"
    first, second = (on_rank[name] for on_rank in trained)
    assert first["error"] == second["error"] == ""
    assert first["a"] == second["a"]
    assert first["a"][1:] == [first["a"][1]] * (STEPS - 1)
    assert first["a"][0] != first["a"][1]
    assert first["b"] == second["b"]
    assert len(set(first["b"])) == STEPS


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_unfrozen_again_a_sigma_is_the_same_on_all_ranks(trained, estimator):
    name = f"for two steps, unused parameters allowed, {estimator}"
    first, second = (on_rank[name] for on_rank in trained)
    assert first["error"] == second["error"] == ""
    assert first["a"] == second["a"]
    assert first["a"][1] == first["a"][3] != first["a"][4] != first["a"][5]
