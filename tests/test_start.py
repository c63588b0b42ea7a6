"""Sigmas that start from data: when, from what, at which value, and what is read for it."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scene import (
    HEADS,
    KINDS,
    PAIR,
    C,
    assert_same_state,
    leaf,
    leaves,
    numbers,
    scene_loss,
    state_of,
)
from tests.strategies import losses
from uncertainty_mtl import (
    GaussianHead,
    LaplaceHead,
    UncertaintyWeightedLoss,
)

both_estimators = pytest.mark.parametrize("estimator", ["learned", "closed_form"])
unusable = pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, -3.0, 0.0, -0.0])


@both_estimators
@given(values=st.lists(st.floats(-4, 4).map(lambda x: 10**x), min_size=1, max_size=9))
def test_the_first_loss_sets_every_weight_to_its_optimum(estimator, values):
    tasks = {f"{i}": KINDS[i % 3] for i in range(len(values))}
    loss_fn = UncertaintyWeightedLoss(tasks, estimator=estimator)
    found = leaves(values)
    loss_fn(found).total.backward()
    for (task, kind), loss in zip(tasks.items(), found, strict=True):
        assert loss_fn.weights()[task].item() * loss.item() == pytest.approx(C[kind], rel=1e-4)
        # It is set before the loss is computed: the first gradient has it already.
        assert loss.grad.item() * loss.item() == pytest.approx(C[kind], rel=1e-4)


@pytest.mark.parametrize(
    ("form", "optimum"),
    [
        ("symmetric", lambda loss: loss),
        ("paper", lambda loss: loss),
        ("libmtl", lambda loss: loss),
        ("liebel_koerner", lambda loss: (loss + math.sqrt(loss**2 + 8 * loss)) / 4),
    ],
)
@given(loss=losses)
def test_the_start_is_the_optimum_of_the_form_of_the_loss(form, optimum, loss):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, form=form)
    loss_fn({"a": leaf(loss), "b": leaf(loss)})
    for sigma in loss_fn.sigmas().values():
        assert sigma.item() ** 2 == pytest.approx(optimum(loss), rel=1e-4)


@both_estimators
def test_predictions_start_at_the_error_of_what_is_not_masked(estimator):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "softmax"}, estimator=estimator)
    target = torch.tensor([3.0, -3.0, math.nan, 3.0])
    logits, labels = torch.zeros(4, 5), torch.tensor([0, 1, 2, -100])
    loss_fn(
        {"a": torch.zeros(4, requires_grad=True), "b": logits},
        {"a": target, "b": labels},
        {"a": torch.tensor([True, True, False, True])},
    )
    assert loss_fn.sigmas()["a"].item() == pytest.approx(3)
    assert loss_fn.sigmas()["b"].item() ** 2 == pytest.approx(2 * math.log(5))


def test_a_number_fixes_the_start():
    loss_fn = UncertaintyWeightedLoss(
        {"a": GaussianHead(init_sigma=7.0), "b": LaplaceHead(init_sigma=1.0), "c": "softmax"}
    )
    for _ in range(4):
        loss_fn({"a": leaf(4.0), "b": leaf(4.0), "c": leaf(4.0)})
    assert numbers(loss_fn.sigmas()) == pytest.approx({"a": 7, "b": 1, "c": math.sqrt(8)})


@both_estimators
def test_nothing_starts_in_evaluation(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator).eval()
    before = state_of(loss_fn)
    for _ in range(4):
        loss_fn(leaves([9.0, 9.0]))
    assert_same_state(state_of(loss_fn), before)
    with torch.no_grad():
        loss_fn.train()(leaves([4.0, 4.0]))
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2), "training mode is what counts"


@both_estimators
@unusable
def test_an_unusable_loss_starts_nothing(estimator, loss):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    loss_fn({"a": leaf(loss), "b": leaf(3.0)})
    assert loss_fn.sigmas()["a"].item() == 1
    assert loss_fn.weights()["b"].item() == pytest.approx(1 / 3)
    assert loss_fn["a"].num_batches_tracked.item() == 0
    loss_fn({"a": leaf(4.0), "b": leaf(3.0)})
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2)


@both_estimators
@unusable
def test_an_unusable_loss_moves_no_sigma_that_has_started(estimator, loss):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    loss_fn(leaves([4.0, 3.0]))
    before = state_of(loss_fn)
    loss_fn.initialize_from({"a": leaf(loss), "b": None})
    loss_fn({"a": leaf(loss), "b": None})
    after = state_of(loss_fn)
    assert_same_state(after, before)


@both_estimators
@unusable
def test_an_unusable_loss_initialises_nothing(estimator, loss):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    loss_fn.initialize_from({"a": leaf(loss), "b": leaf(3.0)})
    assert loss_fn.sigmas()["a"].item() == 1
    assert loss_fn.weights()["b"].item() == pytest.approx(1 / 3)
    loss_fn({"a": leaf(4.0), "b": leaf(3.0)})
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2), "it still starts from data"


@both_estimators
@pytest.mark.parametrize("first_step", [1, 2, 3, 7, 20])
def test_a_task_starts_when_it_first_has_labels(estimator, first_step):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    for _ in range(first_step - 1):
        loss_fn({"a": leaf(4.0), "b": None})
        assert loss_fn.sigmas()["b"].item() == 1
    value = leaf(5.0)
    loss_fn({"a": leaf(4.0), "b": value}).total.backward()
    assert value.grad.item() == pytest.approx(1 / 5)
    loss_fn({"a": leaf(4.0), "b": leaf(50.0)})
    expected = 1 / 5 if estimator == "learned" else 1 / (0.9 * 5 + 0.1 * 50)
    assert loss_fn.weights()["b"].item() == pytest.approx(expected)


@both_estimators
def test_channels_start_one_by_one(estimator):
    loss_fn = UncertaintyWeightedLoss({"a": GaussianHead(num_channels=3)}, estimator=estimator)
    target = torch.tensor([2.0, 3.0, 5.0]).expand(4, 3)
    prediction = torch.zeros(4, 3, requires_grad=True)
    for channels, expected in ([0], [2, 1, 1]), ([0, 2], [2, 1, 5]), ([0, 1, 2], [2, 3, 5]):
        mask = torch.zeros(4, 3, dtype=torch.bool)
        mask[:, channels] = True
        loss_fn({"a": prediction}, {"a": target}, {"a": mask})
        assert loss_fn.sigmas()["a"].tolist() == pytest.approx(expected)


@both_estimators
def test_tasks_that_share_a_head_start_together_at_the_average(estimator):
    head = GaussianHead()
    loss_fn = UncertaintyWeightedLoss(
        {"left": head, "right": head, "up": head}, share_heads=True, estimator=estimator
    )
    loss_fn({"left": leaf(2.0), "right": leaf(6.0), "up": leaf(math.nan)})
    assert numbers(loss_fn.sigmas()) == pytest.approx(dict.fromkeys(loss_fn, 2.0))
    assert head.num_batches_tracked.item() == 1


@both_estimators
def test_a_large_task_counts_no_more_than_a_small_one_that_shares_its_head(estimator):
    loss_fn = UncertaintyWeightedLoss(
        dict.fromkeys(["large", "small"], GaussianHead()), share_heads=True, estimator=estimator
    )
    zeros = {"large": torch.zeros(40, requires_grad=True), "small": torch.zeros(2)}
    loss_fn(zeros, {"large": torch.full((40,), 2.0), "small": torch.full((2,), 4.0)})
    expected = math.sqrt((2**2 + 4**2) / 2)
    assert numbers(loss_fn.sigmas()) == pytest.approx(dict.fromkeys(zeros, expected))


def test_losses_that_share_a_head_share_its_start():
    head = LaplaceHead()
    first = UncertaintyWeightedLoss({"a": head, "b": "gaussian"})
    second = UncertaintyWeightedLoss({"a": head}, form="symmetric")
    first(leaves([3.0, 4.0]))
    second({"a": leaf(100.0)})
    assert second.sigmas()["a"] == first.sigmas()["a"]
    assert first.weights()["a"].item() == pytest.approx(1 / 3)


@both_estimators
def test_frozen_heads_do_not_start(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    loss_fn.freeze("a")
    for loss in (1e20, 4.0, 4.0, 4.0):  # The first is beyond its bounds: nothing to warn of.
        loss_fn(leaves([loss, 3.0]))
    loss_fn.initialize_from(leaves([4.0, 3.0]))
    assert loss_fn.sigmas()["a"].item() == 1
    assert loss_fn.weights()["b"].item() == pytest.approx(1 / 3)
    loss_fn.unfreeze("a")
    for _ in range(2):
        loss_fn(leaves([4.0, 3.0]))
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2)


@both_estimators
@pytest.mark.parametrize("first", ["forward", "initialize_from"])
@pytest.mark.parametrize(("loss", "sigma"), [(1e-20, 1e-10), (1e20, 1e10)])
def test_an_optimum_outside_of_the_bounds_warns_once(estimator, first, loss, sigma):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    call = loss_fn if first == "forward" else loss_fn.initialize_from
    bound = r"\(1e-06, 1000000.0\)"
    with pytest.warns(UserWarning, match=f"task 'a'.*{bound}.* sigma = ") as record:
        call(leaves([loss, 3.0]))
    (warning,) = record
    found = str(warning.message).split("sigma = ")[1].split(" for this loss")[0]
    assert float(found.strip("[]")) == pytest.approx(sigma, rel=1e-3)
    for _ in range(9):  # Warnings are errors: no other comes.
        loss_fn(leaves([loss, 3.0]))


@both_estimators
def test_no_other_warning_comes_when_other_tasks_start_later(estimator):
    loss_fn = UncertaintyWeightedLoss({**PAIR, "c": "softmax"}, estimator=estimator)
    with pytest.warns(UserWarning, match="task 'a'"):
        loss_fn([leaf(1e-20), leaf(1.0), None])
    for step in range(20):
        loss_fn([leaf(1e-20), leaf(1.0), leaf(2.0) if step > 10 else None])


def test_the_bounds_of_a_head_are_its_own():
    head = LaplaceHead(sigma_bounds=(1.0, 2.0))
    loss_fn = UncertaintyWeightedLoss({"a": head, "b": "laplace"})
    with pytest.warns(UserWarning, match=r"task 'a'.*\(1.0, 2.0\)"):
        loss_fn(leaves([10.0, 10.0]))
    expected = {"a": 2, "b": 10 * math.sqrt(2)}
    assert numbers(loss_fn.sigmas()) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_by_itself_starts_at_one(kind):
    assert HEADS[kind]().sigma.item() == 1
    assert HEADS[kind](init_sigma=3.0).sigma.item() == pytest.approx(3)
    assert scene_loss()["instance"].num_batches_tracked.item() == 0


def test_a_late_sigma_that_training_leads_back_is_not_taken_for_a_lost_one():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    optimizer = torch.optim.Adam(loss_fn.param_groups())
    for step in range(600):
        late = None if step < 130 else leaf(0.3 if step == 130 else 0.7)
        optimizer.zero_grad()
        loss_fn({"a": leaf(1.0), "b": late}).total.backward()
        optimizer.step()
    assert loss_fn.weights()["b"].item() * 0.7 == pytest.approx(1, rel=0.05)


def load_the_head(loss_fn):
    loss_fn["a"].load_state_dict(GaussianHead().state_dict())


def reset_the_head(loss_fn):
    loss_fn["a"].reset_parameters()


def load_the_loss(loss_fn):
    loss_fn.load_state_dict(UncertaintyWeightedLoss(PAIR).state_dict())


def reset_the_loss(loss_fn):
    loss_fn.reset_parameters()


@both_estimators
@pytest.mark.parametrize("put_back", [load_the_head, reset_the_head, load_the_loss, reset_the_loss])
def test_a_sigma_that_was_put_back_starts_again(estimator, put_back):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator, momentum=1.0)
    loss_fn(leaves([4.0, 3.0]))
    put_back(loss_fn)
    loss_fn(leaves([9.0, 3.0]))
    assert loss_fn.sigmas()["a"].item() == pytest.approx(3)


def test_a_sigma_that_another_loss_sets_is_not_taken_for_a_lost_one():
    head = GaussianHead()
    first, second = (UncertaintyWeightedLoss({"a": head}) for _ in range(2))
    first([leaf(4.0)])
    second.initialize_from([leaf(1.0)])
    first([leaf(4.0)])
    assert head.sigma.item() == pytest.approx(1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1e5, 3e-5, 1.2345])
def test_autocast_leaves_the_start_of_a_shared_head_in_full_precision(dtype, size):
    """A matrix product would be taken in half precision, whose largest number is 65504."""
    head = GaussianHead()
    losses = UncertaintyWeightedLoss({"a": head, "b": head}, share_heads=True)
    with torch.autocast("cpu", dtype):
        losses({"a": leaf(size), "b": leaf(3 * size)})
    assert float(head.sigma) == pytest.approx((2 * size) ** 0.5, rel=1e-5)
