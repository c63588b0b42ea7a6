"""UW-SO, weights by a softmax of the inverse losses, and UW-O, the inverse losses themselves."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scene import leaf
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

TRIO = {"a": "gaussian", "b": "laplace", "c": "softmax"}
losses_of_trio = st.tuples(*[st.floats(0.1, 100)] * 3)


def softmax_loss(temperature: float = 2.0, momentum: float = 1.0) -> UncertaintyWeightedLoss:
    return UncertaintyWeightedLoss(
        TRIO,
        estimator="closed_form",
        constraint="softmax",
        temperature=temperature,
        momentum=momentum,
    )


def leaves(values):
    return {task: leaf(value) for task, value in values.items()}


def numbers(by_task):
    return [value.item() for value in by_task.values()]


@given(values=losses_of_trio, temperature=st.floats(0.1, 50))
def test_weights_are_the_softmax_of_the_inverse_losses(values, temperature):
    loss_fn, given = softmax_loss(temperature), leaves(dict(zip(TRIO, values, strict=True)))
    losses = loss_fn(given)
    losses.total.backward()
    scores = torch.tensor([1 / (v * temperature) for v in values], dtype=torch.float64)
    expected = scores.softmax(0)
    assert numbers(loss_fn.weights()) == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)
    total = (expected * torch.tensor(values)).sum().item()
    assert losses.total.item() == pytest.approx(total, rel=1e-3), "there is no penalty"
    gradients = [given[task].grad.item() for task in TRIO]
    assert gradients == pytest.approx(expected.tolist(), rel=1e-3, abs=1e-6)


@given(values=losses_of_trio)
def test_sigmas_are_those_of_the_closed_form(values):
    given = dict(zip(TRIO, values, strict=True))
    loss_fn = softmax_loss()
    loss_fn(leaves(given))
    a, b, c = values
    expected = [math.sqrt(a), math.sqrt(2) * b, math.sqrt(2 * c)]
    assert numbers(loss_fn.sigmas()) == pytest.approx(expected, rel=1e-4)


def test_before_any_data_the_weights_are_equal():
    assert numbers(softmax_loss().weights()) == pytest.approx([1 / 3] * 3)


def test_weights_follow_a_running_mean_which_evaluation_leaves_alone():
    loss_fn = softmax_loss(temperature=1.0, momentum=0.5)
    loss_fn(leaves({"a": 1.0, "b": 1.0, "c": 1.0}))
    loss_fn(leaves({"a": 3.0, "b": 1.0, "c": 1.0}))
    expected = torch.tensor([1 / 2, 1, 1]).softmax(0).tolist()
    assert numbers(loss_fn.weights()) == pytest.approx(expected)
    loss_fn.eval()(leaves({"a": 9.0, "b": 9.0, "c": 9.0}))
    assert numbers(loss_fn.weights()) == pytest.approx(expected)
    copied = softmax_loss(temperature=1.0, momentum=0.5)
    copied.load_state_dict(loss_fn.state_dict())
    assert numbers(copied.weights()) == pytest.approx(expected)


@pytest.mark.parametrize("tiny", [1e-30, 1e-44])
def test_tiny_losses_take_all_and_nothing_overflows(tiny):
    heads = {task: GaussianHead(sigma_bounds=(1e-30, 1e6)) for task in "ab"}
    loss_fn = UncertaintyWeightedLoss(
        heads, estimator="closed_form", constraint="softmax", temperature=1e-9
    )
    losses = loss_fn(leaves({"a": tiny, "b": 1.0}))
    assert losses.total.isfinite()
    assert numbers(loss_fn.weights()) == [1, 0]


def test_a_task_without_labels_keeps_its_weight_and_adds_zero():
    loss_fn = softmax_loss()
    loss_fn(leaves({"a": 1.0, "b": 2.0, "c": 3.0}))
    weights = numbers(loss_fn.weights())
    losses = loss_fn({"a": None, "b": leaf(2.0), "c": leaf(3.0)})
    assert losses.tasks["a"] == 0
    assert numbers(loss_fn.weights()) == pytest.approx(weights)
    assert losses.total.item() == pytest.approx(2 * weights[1] + 3 * weights[2])


@given(values=losses_of_trio)
def test_a_task_that_has_had_no_labels_yet_is_weighed_like_an_average_one(values):
    loss_fn = softmax_loss()
    loss_fn({"a": leaf(values[0]), "b": leaf(values[1]), "c": None})
    a, b, c = numbers(loss_fn.weights())
    assert a + b + c == pytest.approx(1)
    assert min(a, b) * (1 - 1e-5) <= c <= max(a, b) * (1 + 1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "learned"}, r"`constraint='softmax'`.*\['closed_form'\].*'learned'"),
        ({"temperature": 0.0}, "`temperature`.*above 0. Found 0.0"),
        ({"temperature": None}, "`temperature`.*no default"),
        ({"constraint": None}, "`temperature`.*`constraint='softmax'`"),
        ({"priorities": {"a": 2.0}}, "without priorities"),
    ],
)
def test_options_that_do_not_fit_are_refused(options, message):
    given = {"estimator": "closed_form", "constraint": "softmax", "temperature": 1.0, **options}
    with pytest.raises(ValueError, match=message):
        UncertaintyWeightedLoss(TRIO, **given)


@given(values=losses_of_trio)
def test_uw_o_is_the_closed_form_without_memory(values):
    loss_fn = UncertaintyWeightedLoss(TRIO, estimator="closed_form", momentum=1, form="symmetric")
    loss_fn(leaves(dict.fromkeys(TRIO, 7.0)))
    loss_fn(leaves(dict(zip(TRIO, values, strict=True))))
    expected = [1 / value for value in values]
    assert numbers(loss_fn.weights()) == pytest.approx(expected, rel=1e-4)


def test_an_average_of_huge_scores_does_not_overflow():
    heads = {f"task_{k}": "gaussian" for k in range(5)} | {"new": "gaussian"}
    losses = UncertaintyWeightedLoss(
        heads, estimator="closed_form", constraint="softmax", temperature=1e-30
    )
    losses({task: None if task == "new" else leaf(1e-9) for task in heads})
    for weight in losses.weights().values():
        assert weight == pytest.approx(1 / 6)
