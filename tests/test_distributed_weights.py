"""On several ranks, weights per element and missing losses count as in one joined batch."""

from copy import deepcopy
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from tests.ranks import on_two_ranks
from uncertainty_mtl import GaussianHead, ScaledSigmoidHead, UncertaintyWeightedLoss

pytestmark = pytest.mark.slow

ESTIMATORS = ("learned", "closed_form")


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Return a prediction, a target and weights, of which rank 0 has far more than rank 1."""
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 8, 3, generator=generator)
    weights = torch.rand(8, 3, generator=generator)
    weights[:4] *= 50
    weights[1] = weights[5] = 0
    return prediction, target, weights


def weighed(rank: int, estimator: str) -> Any:
    prediction, target, weights = (part[4 * rank : 4 * rank + 4] for part in batch())
    target[1] = torch.nan  # under weight 0
    loss_fn = UncertaintyWeightedLoss(
        {"mse": "gaussian", "bce": ScaledSigmoidHead()}, estimator=estimator, global_counts=True
    )
    prediction.requires_grad_()
    losses = loss_fn(
        {"mse": prediction, "bce": prediction},
        {"mse": target, "bce": target.sigmoid()},
        {"mse": weights, "bce": weights},
    )
    losses.total.backward()
    return {
        "errors": losses.errors,
        "counts": losses.counts,
        "sigmas": loss_fn.sigmas(),
        "gradient": prediction.grad,
    }


def zero_on_rank_0(rank: int, estimator: str) -> Any:
    loss_fn = UncertaintyWeightedLoss(
        {"boxes": "gaussian"}, estimator=estimator, global_counts=True, zero_is_missing=True
    )
    loss = torch.tensor(9.0 * rank, requires_grad=True)
    losses = loss_fn({"boxes": loss})
    losses.total.backward()
    return {"sigma": loss_fn.sigmas(), "errors": losses.errors, "gradient": loss.grad}


def run_all(rank: int) -> dict[str, Any]:
    return {e: {"weighed": weighed(rank, e), "zero": zero_on_rank_0(rank, e)} for e in ESTIMATORS}


@pytest.fixture(scope="module")
def on_ranks(tmp_path_factory):
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), run_all)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_global_counts_join_the_weights(on_ranks, estimator):
    prediction, target, weights = batch()
    prediction.requires_grad_()
    errors = {
        "mse": (prediction - target).square(),
        "bce": F.binary_cross_entropy_with_logits(prediction, target.sigmoid(), reduction="none"),
    }
    means = {task: (error * weights).sum() / weights.sum() for task, error in errors.items()}
    # At the optimum the weights are 1/2 over the mean.
    total = sum(mean / (2 * mean.detach()) for mean in means.values())
    total.backward()
    expected = {"mse": means["mse"].sqrt(), "bce": (2 * means["bce"]).sqrt()}

    for rank, found in enumerate(of_rank[estimator]["weighed"] for of_rank in on_ranks):
        for task in ("mse", "bce"):
            torch.testing.assert_close(found["errors"][task], means[task].detach())
            torch.testing.assert_close(found["counts"][task], weights.sum())
            torch.testing.assert_close(found["sigmas"][task], expected[task].detach())
        # Gradients are averaged over the two ranks afterwards, which halves them.
        half = prediction.grad[4 * rank : 4 * rank + 4]
        torch.testing.assert_close(found["gradient"] / 2, half)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_zero_on_one_rank_leaves_the_mean_to_the_other(on_ranks, estimator):
    for rank, found in enumerate(of_rank[estimator]["zero"] for of_rank in on_ranks):
        assert found["errors"]["boxes"].item() == 9
        assert found["sigma"]["boxes"].item() == pytest.approx(3)
        # The weight is 1 / 18, times the two ranks that gradients are averaged over.
        assert found["gradient"].item() == pytest.approx(rank * 2 / 18)


def outside_of_the_group(rank: int) -> Any:
    group = dist.new_group([1])
    loss_fn = UncertaintyWeightedLoss(
        {"depth": GaussianHead(init_sigma=1.0)}, global_counts=True, process_group=group
    )
    prediction = torch.full((4,), 2.0 + rank, requires_grad=True)
    deepcopy(loss_fn)({"depth": prediction}, {"depth": torch.zeros(4)}).total.backward()
    return prediction.grad


def test_a_copy_of_a_loss_with_a_group_works_also_outside_of_the_group(tmp_path):
    for rank, gradient in enumerate(on_two_ranks(tmp_path, outside_of_the_group)):
        torch.testing.assert_close(gradient, torch.full((4,), (2.0 + rank) / 4))
