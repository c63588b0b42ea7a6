"""Sigmas in closed form: their running mean, their gradient, heads of a user's own."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Distribution

from tests.scene import HEADS, KINDS, PAIR, C, leaf, leaves, numbers
from tests.strategies import losses
from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticLaplaceHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    TaskHead,
    UncertaintyWeightedLoss,
)
from uncertainty_mtl.forms import BaseLoss, PowerForm

every_kind = pytest.mark.parametrize("kind", KINDS)


class QuarticHead(TaskHead):
    """A head as a user writes it: p(r) ~ exp(-(r / a)^4) / a, with a = sigma."""

    def __init__(self, *, init_sigma: float | None = None) -> None:
        super().__init__(form=PowerForm(1.0, power=2.0), init_sigma=init_sigma)

    def base_loss(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the fourth power of the residual."""
        error = (prediction - target) ** 4
        mask = torch.ones_like(error, dtype=torch.bool) if mask is None else mask
        return BaseLoss(torch.where(mask, error, 0.0).sum(), mask.sum().float())

    def distribution(self, prediction: Tensor) -> Distribution:
        """Refuse."""
        raise TypeError("torch.distributions has no such density")


@every_kind
@given(loss=losses, init=st.floats(1e-3, 1e3))
def test_closed_form_is_at_the_optimum_after_one_batch(kind, loss, init):
    loss_fn = UncertaintyWeightedLoss(
        {"a": HEADS[kind](init_sigma=init)}, estimator="closed_form", momentum=1.0
    )
    loss_fn({"a": leaf(loss)})
    assert loss_fn.weights()["a"].item() * loss == pytest.approx(C[kind], rel=1e-4)


@every_kind
@given(values=st.lists(losses, min_size=1, max_size=6), momentum=st.floats(0.05, 1))
def test_closed_form_follows_the_running_mean_of_batch_norm(kind, values, momentum):
    loss_fn = UncertaintyWeightedLoss({"a": kind}, estimator="closed_form", momentum=momentum)
    norm = nn.BatchNorm1d(1, momentum=momentum, affine=False)
    norm.running_mean.fill_(values[0])  # The first batch sets the mean.
    for i, value in enumerate(values):
        loss_fn({"a": leaf(value)})
        if i:
            norm(torch.full((2, 1), value))
        running, rounding = norm.running_mean.item(), 1e-6 * max(values)
        assert loss_fn.scales.running_losses.a.item() == pytest.approx(running, abs=rounding)
        optimal = C[kind] / loss_fn.weights()["a"].item()
        assert optimal == pytest.approx(running, rel=1e-4, abs=rounding)
    loss_fn.eval()({"a": leaf(1e3)})
    assert loss_fn["a"].num_batches_tracked == len(values)


@every_kind
def test_closed_form_total_is_the_nll_and_the_network_sees_the_weighted_loss(kind):
    loss_fn = UncertaintyWeightedLoss({"a": kind}, estimator="closed_form")
    loss = leaf(2.3)
    total = loss_fn({"a": loss}).total
    total.backward()
    assert loss.grad.item() == pytest.approx(loss_fn.weights()["a"].item())
    fixed = HEADS[kind](init_sigma=loss_fn.sigmas()["a"].item())
    torch.testing.assert_close(total, fixed.weigh(loss))


def test_closed_form_needs_no_optimizer_and_no_optimizer_moves_it():
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator="closed_form")
    assert loss_fn.param_groups() == []
    loss_fn.check_optimizer(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))
    alone = UncertaintyWeightedLoss(PAIR, estimator="closed_form")
    # Decay and momentum of an optimizer that was given everything move the parameters...
    optimizer = torch.optim.AdamW(loss_fn.parameters(), lr=0.3, weight_decay=0.9)
    for value in (4.0, 5.0, 6.0, 7.0):
        optimizer.zero_grad()
        inputs = leaves([value, value])
        loss_fn(inputs).total.backward()
        others = leaves([value, value])
        alone(others).total.backward()
        # ... but neither the weights of a step nor those that are read between steps.
        assert [x.grad.item() for x in inputs] == [x.grad.item() for x in others]
        assert all(p.grad.item() == 0 for p in loss_fn.parameters())
        optimizer.step()
        assert numbers(loss_fn.weights()) == pytest.approx(numbers(alone.weights()), rel=1e-6)
    loss_fn.eval(), alone.eval()
    inputs = leaves([4.0, 3.0])
    torch.testing.assert_close(loss_fn(inputs).total, alone(inputs).total)


def test_evaluation_and_empty_batches_leave_the_running_mean_alone():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, estimator="closed_form")
    loss_fn({"a": None})
    assert loss_fn.sigmas()["a"].item() == 1
    loss_fn({"a": leaf(4.0)})
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2), "an empty batch is not the first"
    loss_fn({"a": None})
    loss_fn.eval()({"a": leaf(100.0)})
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2)


def test_accumulated_calls_all_count():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, estimator="closed_form", momentum=0.5)
    for value in (4.0, 8.0, 2.0):
        loss_fn({"a": leaf(value)})
    assert loss_fn.sigmas()["a"].item() ** 2 == pytest.approx(4)
    with torch.no_grad():
        loss_fn({"a": leaf(8.0)})
    assert loss_fn.sigmas()["a"].item() ** 2 == pytest.approx(6)


def test_closed_form_resumes_bit_identically():
    def run(loss_fn, values):
        for value in values:
            loss_fn({"a": leaf(value), "b": leaf(2 * value)})
        return loss_fn

    def build():
        return UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, estimator="closed_form")

    values = torch.rand(20).tolist()
    resumed = build()
    resumed.load_state_dict(run(build(), values[:10]).state_dict())
    whole = run(build(), values)
    for task, sigma in run(resumed, values[10:]).sigmas().items():
        assert torch.equal(sigma, whole.sigmas()[task])


def test_closed_form_has_a_scale_per_channel_too():
    loss_fn = UncertaintyWeightedLoss(
        {"a": GaussianHead(num_channels=2)}, estimator="closed_form", momentum=1.0
    )
    target = torch.randn(50, 2) * torch.tensor([1.0, 7.0])
    loss_fn({"a": torch.zeros(50, 2)}, {"a": target})
    torch.testing.assert_close(loss_fn.sigmas()["a"], target.square().mean(0).sqrt())


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@pytest.mark.parametrize("first", ["forward", "initialize_from"])
def test_a_head_that_a_user_wrote_works_everywhere(estimator, first):
    loss_fn = UncertaintyWeightedLoss(
        {"q": QuarticHead(), "a": "laplace"}, estimator=estimator, momentum=1.0
    )
    prediction, target = {"q": torch.zeros(8), "a": leaf(2.0)}, {"q": torch.full((8,), 2.0)}
    # -log p = e^{-2s} r^4 + s/2 with r = 2: e^{2s} = 4 * 16.
    (loss_fn if first == "forward" else loss_fn.initialize_from)(prediction, target)
    assert loss_fn.sigmas()["q"].item() == pytest.approx(64 ** (1 / 4))
    assert loss_fn.weights()["q"].item() * 16 == pytest.approx(1 / 4)
    loss_fn(prediction, target, {"q": torch.zeros(8, dtype=torch.bool)}).total.backward()
    assert loss_fn.sigmas()["q"].item() == pytest.approx(64 ** (1 / 4))


def test_options_that_do_not_combine_are_refused():
    with pytest.raises(ValueError, match=r"Task .a.: .*by gradient"):
        UncertaintyWeightedLoss({"a": ScaledSoftmaxHead(exact=True)}, estimator="closed_form")
    with pytest.raises(ValueError, match=r"Task .a.: .*`form='nll'`"):
        UncertaintyWeightedLoss({"a": ScaledSoftmaxHead(exact=True)}, form="symmetric")
    with pytest.raises(ValueError, match=r"Task .a.: .*`form='nll'`"):
        UncertaintyWeightedLoss({"a": HeteroscedasticLaplaceHead()}, form="paper")
    UncertaintyWeightedLoss({"a": HeteroscedasticLaplaceHead()}, estimator="closed_form")


def test_two_estimators_of_one_head_keep_running_means_of_their_own():
    head = LaplaceHead()
    slow = UncertaintyWeightedLoss({"a": head}, estimator="closed_form", momentum=0.1)
    fast = UncertaintyWeightedLoss({"a": head}, estimator="closed_form", momentum=1.0)
    slow({"a": leaf(2.0)})
    fast({"a": leaf(10.0)})
    assert slow.weights()["a"].item() == pytest.approx(1 / 2)
    assert fast.weights()["a"].item() == pytest.approx(1 / 10)
    slow({"a": leaf(2.0)})
    assert slow.weights()["a"].item() == pytest.approx(1 / 2)
    assert math.isclose(fast.weights()["a"].item(), 1 / 10, rel_tol=1e-5)


@every_kind
@given(values=st.lists(st.floats(1e-4, 1e4), min_size=2, max_size=6))
def test_a_closed_form_with_a_momentum_of_1_knows_only_the_newest_loss(kind, values):
    loss_fn = UncertaintyWeightedLoss({"a": kind}, estimator="closed_form", momentum=1)
    for value in values:
        loss_fn({"a": leaf(value)})
    assert loss_fn.weights()["a"].item() * values[-1] == pytest.approx(C[kind], rel=1e-4)
