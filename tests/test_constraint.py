"""Weights that sum to one: their optimum, absent tasks, and the growth they prevent."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from tests.scene import KINDS, C, leaves
from tests.strategies import seeds
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss


def optimum(kinds: list[str], values: list[float], c: dict[str, float] = C) -> list[float]:
    """Return c / (L + lambda) with the lambda that makes them sum to 1, by another solver."""
    cs = [c[kind] for kind in kinds]
    pairs = list(zip(cs, values, strict=True))
    lowest = -min(values)
    root = brentq(
        lambda x: sum(a / (b + x) for a, b in pairs) - 1, lowest + 1e-9, lowest + sum(cs) + 1e3
    )
    return [a / (b + root) for a, b in pairs]


def at_one() -> dict[str, GaussianHead | LaplaceHead | ScaledSoftmaxHead]:
    """Return heads whose weights are far from the optimum when training begins."""
    return {
        "gaussian": GaussianHead(init_sigma=1.0),
        "laplace": LaplaceHead(init_sigma=1.0),
        "softmax": ScaledSoftmaxHead(init_sigma=1.0),
    }


def weights(loss_fn: UncertaintyWeightedLoss) -> list[float]:
    return [weight.item() for weight in loss_fn.weights().values()]


def train(loss_fn, values, steps=1500, lr=0.05):
    optimizer = torch.optim.SGD(loss_fn.param_groups(lr=lr), momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        loss_fn(values).total.backward()
        optimizer.step()
        if step < 100 or step % 50 == 0:  # asking costs more than a step
            assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)


tasks_with_losses = st.lists(
    st.tuples(st.sampled_from(KINDS), st.floats(0.05, 20)), min_size=2, max_size=6
)


@given(tasks=tasks_with_losses)
def test_the_first_step_and_initialisation_solve_the_constrained_problem(tasks):
    kinds, values = map(list, zip(*tasks, strict=True))
    expected = optimum(kinds, values)
    for estimator, first in itertools.product(("learned", "closed_form"), ("forward", "init")):
        loss_fn = UncertaintyWeightedLoss(
            {f"{i}": kind for i, kind in enumerate(kinds)},
            constraint="unit_sum",
            estimator=estimator,
            momentum=1.0,
        )
        if first == "init":
            loss_fn.initialize_from(leaves(values))
            assert weights(loss_fn) == pytest.approx(expected, rel=1e-4)
        found = leaves(values)
        loss_fn(found).total.backward()
        assert [value.grad.item() for value in found] == pytest.approx(expected, rel=1e-4)
        assert weights(loss_fn) == pytest.approx(expected, rel=1e-4)
        assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("values", [[0.3, 2.0, 1.0], [5.0, 0.01, 0.1], [1.0, 1.0, 1.0]])
def test_descent_reaches_the_constrained_optimum(values):
    loss_fn = UncertaintyWeightedLoss(at_one(), constraint="unit_sum")
    train(loss_fn, leaves(values))
    assert weights(loss_fn) == pytest.approx(optimum(KINDS, values), rel=2e-3)


@given(tasks=tasks_with_losses, seed=seeds)
def test_weights_sum_to_one_whatever_the_optimizer_does(tasks, seed):
    kinds, values = map(list, zip(*tasks, strict=True))
    loss_fn = UncertaintyWeightedLoss(
        {f"{i}": kind for i, kind in enumerate(kinds)}, constraint="unit_sum"
    )
    generator = torch.Generator().manual_seed(seed)
    loss_fn(leaves(values)), loss_fn(leaves(values))
    for _ in range(3):
        with torch.no_grad():
            for parameter in loss_fn.parameters():
                parameter.add_(5 * torch.randn(1, generator=generator))
        assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)
        before = weights(loss_fn)
        values_now = leaves(values)
        loss_fn(values_now).total.backward()
        assert weights(loss_fn) == pytest.approx(before, rel=1e-4)
        seen = [value.grad.item() for value in values_now]
        assert seen == pytest.approx(before, rel=1e-4), "the network sees these weights"
        assert sum(seen) == pytest.approx(1, abs=1e-6)


def test_symmetric_form_has_inverse_variances_that_sum_to_one():
    loss_fn = UncertaintyWeightedLoss(at_one(), constraint="unit_sum", form="symmetric")
    values = [0.3, 2.0, 1.0]
    train(loss_fn, leaves(values))
    inverse = [1 / sigma.item() ** 2 for sigma in loss_fn.sigmas().values()]
    assert sum(inverse) == pytest.approx(1, abs=1e-6)
    assert inverse == pytest.approx(optimum(KINDS, values, dict.fromkeys(KINDS, 1.0)), rel=2e-3)


def test_the_gradient_is_that_of_the_objective_on_the_simplex():
    # The same objective with weights = softmax(theta), written out.
    values = torch.tensor([0.3, 2.0, 1.0])
    loss_fn = UncertaintyWeightedLoss({kind: kind for kind in KINDS}, constraint="unit_sum")
    loss_fn.initialize_from([torch.tensor(1.0), torch.tensor(0.2), torch.tensor(3.0)])
    loss_fn(leaves(values.tolist())).total.backward()
    theta = torch.tensor(weights(loss_fn)).log().requires_grad_()
    w = torch.softmax(theta, 0)
    (w * values - torch.tensor([C[kind] for kind in KINDS]) * w.log()).sum().backward()
    # d log w / d s = -1, -1/2, -1.
    expected = theta.grad * torch.tensor([-1.0, -0.5, -1.0])
    found = torch.cat([parameter.grad for parameter in loss_fn.parameters()])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["none", "mask"])
def test_an_unlabelled_task_keeps_its_share(how):
    heads = {
        "semantic": ScaledSoftmaxHead(init_sigma=1.0),
        "depth": LaplaceHead(init_sigma=1.0),
        "normals": GaussianHead(init_sigma=1.0),
    }
    loss_fn = UncertaintyWeightedLoss(heads, constraint="unit_sum")
    predictions = {
        "semantic": torch.randn(4, 3, 5, requires_grad=True),
        "depth": torch.randn(4, 5, requires_grad=True),
        "normals": torch.randn(4, 5, requires_grad=True),
    }
    targets = {
        "semantic": torch.randint(3, (4, 5)),
        "depth": None if how == "none" else torch.randn(4, 5),
        "normals": 9 * torch.randn(4, 5),
    }
    masks = {"depth": torch.zeros(4, 5, dtype=torch.bool)} if how == "mask" else None
    optimizer = torch.optim.Adam(loss_fn.param_groups(lr=0.1))
    before = loss_fn.weights()
    for _ in range(20):
        optimizer.zero_grad()
        losses = loss_fn(predictions, targets, masks)
        assert losses.tasks["depth"].item() == 0
        losses.total.backward()
        assert loss_fn["depth"].log_var.grad.item() == 0
        optimizer.step()
    after = loss_fn.weights()
    assert after["depth"].item() == pytest.approx(before["depth"].item(), rel=1e-5)
    assert after["normals"].item() != pytest.approx(before["normals"].item(), rel=0.1)
    assert sum(weight.item() for weight in after.values()) == pytest.approx(1, abs=1e-6)


def test_all_tasks_may_be_unlabelled():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, constraint="unit_sum")
    loss_fn([None, None]).total.backward()
    assert all(parameter.grad.item() == 0 for parameter in loss_fn.parameters())


def test_the_constraint_resumes_bit_identically():
    def build():
        return UncertaintyWeightedLoss({kind: kind for kind in KINDS}, constraint="unit_sum")

    def run(loss_fn, steps):
        optimizer = torch.optim.SGD(loss_fn.param_groups(lr=0.1))
        for step in steps:
            values = leaves([0.3, 2.0, 1.0])
            optimizer.zero_grad()
            loss_fn([None if step % 3 == i else v for i, v in enumerate(values)]).total.backward()
            optimizer.step()
        return loss_fn

    resumed = build()
    resumed.load_state_dict(run(build(), range(10)).state_dict())
    assert weights(run(resumed, range(10, 20))) == weights(run(build(), range(20)))


def test_it_prevents_the_growth_of_the_effective_learning_rate():
    # The losses shrink by 1000, as in a training that goes well.
    growth = {}
    for constraint in (None, "unit_sum"):
        loss_fn = UncertaintyWeightedLoss({kind: kind for kind in KINDS}, constraint=constraint)
        totals = []
        for scale in (1.0, 1e-3):
            values = leaves([scale, scale, scale])
            loss_fn.initialize_from(values)
            loss_fn(values).total.backward()
            totals.append(sum(value.grad.item() for value in values))
        growth[constraint] = totals[1] / totals[0]
    assert growth[None] == pytest.approx(1000, rel=1e-3)
    assert growth["unit_sum"] == pytest.approx(1, rel=1e-5)


def test_invariance_to_units_is_lost():
    # Without the constraint both products are 1/2, in metres and in centimetres.
    weighted_losses = []
    for unit in (1.0, 100.0):
        loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "gaussian"}, constraint="unit_sum")
        loss_fn.initialize_from([torch.tensor(unit * 0.01), torch.tensor(1.0)])
        weighted_losses.append(weights(loss_fn)[0] * unit * 0.01)
    assert weighted_losses[1] > 10 * weighted_losses[0]


def test_a_task_without_a_usable_loss_counts_as_at_its_own_optimum():
    # Its share at sigma = 1 is that of a loss of 1 (Gaussian): the others divide around it.
    for loss in (None, math.nan, math.inf, 0.0, -1.0):
        loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "gaussian"}, constraint="unit_sum")
        values = leaves([math.nan if loss is None else loss, 4.0])
        loss_fn.initialize_from([None if loss is None else values[0], values[1]])
        assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)
        assert weights(loss_fn) == pytest.approx(optimum(["gaussian"] * 2, [1.0, 4.0]), rel=1e-4)


def test_an_unusable_loss_is_no_estimate():
    for estimator in ("learned", "closed_form"):
        loss_fn = UncertaintyWeightedLoss(
            {"a": "gaussian", "b": "gaussian"}, constraint="unit_sum", estimator=estimator
        )
        loss_fn.initialize_from(leaves([4.0, 1.0]))
        for loss in (math.nan, math.inf, 0.0, -1.0):
            loss_fn.initialize_from(leaves([loss, 1.0]))
            loss_fn(leaves([loss, 1.0]))
            assert all(math.isfinite(weight) for weight in weights(loss_fn))
            assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)


def test_frozen_shares_stay_and_the_others_divide_the_rest():
    loss_fn = UncertaintyWeightedLoss(
        {"a": "gaussian", "b": "gaussian", "c": "gaussian"}, constraint="unit_sum"
    )
    loss_fn(leaves([1.0, 2.0, 3.0]))
    share = weights(loss_fn)[0]
    loss_fn.freeze("a")
    train(loss_fn, leaves([9.0, 0.1, 5.0]), steps=300)
    assert weights(loss_fn)[0] == pytest.approx(share, rel=1e-4)
    assert weights(loss_fn)[1] > weights(loss_fn)[2]


def test_a_share_that_was_thrown_to_nothing_rises_again():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "gaussian"}, constraint="unit_sum")
    loss_fn(leaves([1.0, 1.0]))
    with torch.no_grad():
        loss_fn["a"].log_var.add_(-0.1)
        loss_fn["b"].log_var.add_(1000.0)  # 10,000 steps of the optimizer below
    loss_fn(leaves([1.0, 1.0]))
    assert weights(loss_fn)[1] < 1e-10
    optimizer = torch.optim.Adam(loss_fn.param_groups(lr=0.1))
    for _ in range(600):
        optimizer.zero_grad()
        loss_fn(leaves([1.0, 1.0])).total.backward()
        optimizer.step()
    assert weights(loss_fn) == pytest.approx([0.5, 0.5], rel=0.01)


def test_a_late_task_joins_at_the_joint_optimum():
    loss_fn = UncertaintyWeightedLoss({kind: kind for kind in KINDS}, constraint="unit_sum")
    loss_fn([*leaves([0.3, 2.0]), None])
    loss_fn([*leaves([0.3, 2.0]), None])
    assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)
    loss_fn(leaves([0.3, 2.0, 1.0]))
    assert loss_fn["softmax"].num_batches_tracked.item() == 1
    assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize(
    ("heads", "options"),
    [
        ({"a": GaussianHead(num_channels=2)}, {}),
        ({"a": ScaledSoftmaxHead(exact=True)}, {}),
        ({"a": "gaussian"}, {"form": "liebel_koerner"}),
        ({"a": "gaussian"}, {"priorities": {"a": 2.0}}),
        ({"a": "gaussian", "g": UncertaintyWeightedLoss({"b": "laplace"})}, {}),
        (dict.fromkeys("ab", GaussianHead()), {"share_heads": True}),
    ],
)
def test_what_does_not_combine_is_refused(heads, options):
    with pytest.raises(ValueError, match=r"`constraint='unit_sum'` should"):
        UncertaintyWeightedLoss(heads, constraint="unit_sum", **options)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@pytest.mark.parametrize("frozen", ["gaussian", "laplace"])
def test_a_frozen_task_keeps_its_share_and_the_others_divide_the_rest(estimator, frozen):
    options = {"momentum": 1} if estimator == "closed_form" else {}
    loss_fn = UncertaintyWeightedLoss(
        at_one(), estimator=estimator, constraint="unit_sum", **options
    )
    loss_fn.initialize_from(by_kind([1.0, 1.0, 1.0]))
    share = loss_fn.weights()[frozen].item()
    loss_fn.freeze(frozen)
    for values in ([1.0, 4.0, 2.0], [5.0, 0.1, 2.0]):
        loss_fn(by_kind(values))
        assert loss_fn.weights()[frozen].item() == pytest.approx(share, rel=1e-6)
        assert sum(weights(loss_fn)) == pytest.approx(1, abs=1e-6)
        used = [loss_fn[kind].weight.item() for kind in KINDS]
        assert used == pytest.approx(weights(loss_fn), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_task_without_labels_keeps_its_share_in_any_dtype(dtype):
    loss_fn = UncertaintyWeightedLoss(at_one(), constraint="unit_sum")
    optimizer = torch.optim.SGD(loss_fn.param_groups(lr=0.05))
    values = {"gaussian": None, "laplace": 3.0, "softmax": 0.2}
    share = loss_fn.weights()["gaussian"].item()
    for _ in range(100):
        losses = {
            k: None if v is None else torch.tensor(v, dtype=dtype, requires_grad=True)
            for k, v in values.items()
        }
        optimizer.zero_grad()
        loss_fn(losses).total.backward()
        optimizer.step()
    assert loss_fn.weights()["gaussian"].item() == pytest.approx(share, rel=1e-5)


def by_kind(values):
    return {k: torch.tensor(v, requires_grad=True) for k, v in zip(KINDS, values, strict=True)}
