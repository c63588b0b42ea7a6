"""Fixed weights: the baseline, called like a learned loss."""

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scene import leaf
from tests.strategies import losses as base_losses
from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticGaussianHead,
    HeteroscedasticLaplaceHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
)

PAIR = {"depth": "laplace", "classes": "softmax"}


@given(
    values=st.tuples(base_losses, base_losses), weight=st.floats(0, 100), priority=st.floats(0.1, 9)
)
def test_the_total_is_the_weighted_sum(values, weight, priority):
    loss_fn = UncertaintyWeightedLoss(
        PAIR, estimator="fixed", weights={"depth": weight}, priorities={"depth": priority}
    )
    depth, classes = leaf(values[0]), leaf(values[1])
    losses = loss_fn({"depth": depth, "classes": classes})
    losses.total.backward()
    expected = priority * weight * values[0] + values[1]
    assert losses.total.item() == pytest.approx(expected, rel=1e-5)
    assert depth.grad.item() == pytest.approx(priority * weight, rel=1e-5)
    assert classes.grad.item() == 1
    weights = {task: w.item() for task, w in loss_fn.weights().items()}
    assert weights == pytest.approx({"depth": priority * weight, "classes": 1}, rel=1e-5)
    assert all(sigma.isnan() for sigma in loss_fn.sigmas().values())


def test_nothing_is_learned_and_every_parameter_gets_a_zero():
    head = LaplaceHead(full=True)
    before = copy.deepcopy(head.state_dict())
    loss_fn = UncertaintyWeightedLoss({"a": head, "b": "gaussian"}, estimator="fixed")
    for _ in range(3):
        loss_fn({"a": leaf(2.0), "b": leaf(5.0)}).total.backward()
    loss_fn.initialize_from({"a": leaf(2.0), "b": leaf(5.0)})
    assert loss_fn.param_groups() == []
    loss_fn.check_optimizer(torch.optim.SGD([leaf(1.0)], lr=1.0))
    assert [parameter.grad.item() for parameter in loss_fn.parameters()] == [0, 0]
    assert head.state_dict() == before
    assert loss_fn({"a": leaf(2.0), "b": leaf(5.0)}).total.item() == 7, "no constant is added"


def test_a_task_without_labels_adds_zero():
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator="fixed", weights={"depth": 0.5})
    losses = loss_fn({"depth": leaf(3.0), "classes": None})
    assert losses.total.item() == 1.5
    assert losses.tasks["classes"] == 0
    assert losses.errors["classes"].isnan()


def test_channels_are_weighed_by_their_mean_over_all_elements():
    loss_fn = UncertaintyWeightedLoss(
        {"c": GaussianHead(num_channels=3)}, estimator="fixed", weights={"c": 2.0}
    )
    prediction, mask = torch.randn(4, 3), torch.rand(4, 3) < 0.7
    losses = loss_fn({"c": prediction}, {"c": torch.zeros(4, 3)}, {"c": mask})
    torch.testing.assert_close(losses.total, 2 * prediction[mask].square().mean())


def test_predicted_noise_is_multiplied():
    pair = torch.randn(5), torch.randn(5)
    loss_fn = UncertaintyWeightedLoss(
        {"depth": HeteroscedasticLaplaceHead()}, estimator="fixed", weights={"depth": 3.0}
    )
    total = loss_fn({"depth": pair}, {"depth": torch.zeros(5)}).total
    torch.testing.assert_close(total, 3 * HeteroscedasticLaplaceHead()(pair, torch.zeros(5)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": {"deph": 1.0}}, r"`weights`.*unknown: \['deph'\]"),
        ({"weights": {"depth": -1.0}}, r"`weights\['depth'\]`.*at least 0. Found -1.0"),
        ({"weights": {"depth": math.nan}}, r"`weights\['depth'\]`.*Found nan"),
        ({"weights": {}, "estimator": "learned"}, "`weights`.*`estimator='fixed'`.*`priorities`"),
        ({"constraint": "unit_sum"}, r"`constraint='unit_sum'`.*Found 'fixed'"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UncertaintyWeightedLoss(PAIR, **{"estimator": "fixed", **options})
    with pytest.raises(ValueError, match=r"Task 'a'.*learn its scale by gradient.*'fixed'"):
        UncertaintyWeightedLoss({"a": ScaledSoftmaxHead(exact=True)}, estimator="fixed")


def test_weights_are_the_factors_also_where_the_network_predicts_the_noise():
    losses = UncertaintyWeightedLoss(
        {"noisy": HeteroscedasticGaussianHead(), "plain": "gaussian"},
        estimator="fixed",
        weights={"noisy": 3.0},
    )
    assert {task: float(weight) for task, weight in losses.weights().items()} == {
        "noisy": 3.0,
        "plain": 1.0,
    }


OPTIONS = [
    {"estimator": "fixed"},
    {"estimator": "learned"},
    {"estimator": "closed_form"},
    {"estimator": "learned", "constraint": "unit_sum"},
    {"estimator": "closed_form", "constraint": "softmax", "temperature": 1.0},
]


@pytest.mark.parametrize("one", OPTIONS)
@pytest.mark.parametrize("other", OPTIONS)
def test_a_checkpoint_of_one_way_to_weigh_loads_into_every_other(one, other):
    """A run can then continue with another weighting, or be compared with fixed weights."""
    before = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, **one)
    before({"a": leaf(2.0), "b": leaf(3.0)})
    after = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, **other)
    after.load_state_dict(before.state_dict())
    for task in ("a", "b"):
        torch.testing.assert_close(after[task].log_var, before[task].log_var)
    assert after({"a": leaf(2.0), "b": leaf(3.0)}).total.isfinite()
