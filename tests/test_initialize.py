"""Sigmas from a batch of the user's choice, and what is read until all have started."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scene import KINDS, PAIR, C, CountReads, leaf, leaves, numbers, scene_batch
from tests.strategies import seeds
from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticGaussianHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
)

both_estimators = pytest.mark.parametrize("estimator", ["learned", "closed_form"])


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@given(seed=seeds, k=st.integers(1, 50))
def test_initialisation_puts_every_weight_at_its_optimum(estimator, seed, k):
    generator = torch.Generator().manual_seed(seed)
    values = 10 ** torch.empty(k).uniform_(-4, 4, generator=generator)
    tasks = {f"{i}": KINDS[i % 3] for i in range(k)}
    loss_fn = UncertaintyWeightedLoss(tasks, estimator=estimator)
    loss_fn.initialize_from(values)
    for (task, kind), value in zip(tasks.items(), values.tolist(), strict=True):
        assert loss_fn.weights()[task].item() * value == pytest.approx(C[kind], rel=1e-4)


def test_initialisation_takes_predictions_masks_groups_and_absent_tasks():
    group = UncertaintyWeightedLoss({"x": "gaussian", "y": "laplace"})
    loss_fn = UncertaintyWeightedLoss({"flow": group, "depth": LaplaceHead(init_sigma=3.0)})
    zero, target = torch.zeros(4), torch.tensor([2.0, 2.0, math.nan, math.nan])
    mask = target.isfinite()
    loss_fn.initialize_from(
        {"flow": {"x": zero, "y": zero}, "depth": zero},
        {"flow": {"x": target, "y": target}, "depth": None},
        {"flow": {"x": mask, "y": mask}},
    )
    expected = {"flow.x": 2, "flow.y": 2 * math.sqrt(2), "depth": 3}
    assert numbers(loss_fn.sigmas()) == pytest.approx(expected)


def test_initialisation_moves_a_head_with_a_fixed_start_and_is_the_start_of_the_others():
    loss_fn = UncertaintyWeightedLoss({"a": GaussianHead(init_sigma=7.0), "b": "gaussian"})
    loss_fn.initialize_from(leaves([4.0, 9.0]))
    loss_fn(leaves([100.0, 100.0]))
    assert numbers(loss_fn.sigmas()) == pytest.approx({"a": 2, "b": 3})


def test_running_means_go_on_from_the_initialisation():
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator="closed_form", momentum=0.25)
    loss_fn.initialize_from(leaves([4.0, 3.0]))
    loss_fn(leaves([8.0, 1.0]))
    expected = {"a": math.sqrt(0.75 * 4 + 0.25 * 8), "b": math.sqrt(2) * (0.75 * 3 + 0.25 * 1)}
    assert numbers(loss_fn.sigmas()) == pytest.approx(expected)


def test_initialisation_finds_the_temperature_of_an_exact_softmax():
    logits = 5 * torch.randn(20_000, 5)
    labels = torch.distributions.Categorical(logits=logits / 4).sample()
    head = ScaledSoftmaxHead(exact=True)
    loss_fn = UncertaintyWeightedLoss({"a": head})
    loss_fn.initialize_from({"a": logits}, {"a": labels})
    assert head.sigma.item() ** 2 == pytest.approx(4, rel=0.05)
    head(logits, labels).backward()
    assert abs(head.log_var.grad.item()) < 1e-4


def test_a_frozen_temperature_is_not_initialised():
    head = ScaledSoftmaxHead(exact=True, init_sigma=2.0)
    loss_fn = UncertaintyWeightedLoss({"a": head})
    loss_fn.freeze("a")
    loss_fn.initialize_from({"a": torch.randn(9, 5)}, {"a": torch.zeros(9, dtype=torch.long)})
    assert head.sigma.item() == pytest.approx(2)


LABELS = {"a": torch.randint(3, (6,)), "n": torch.randn(6), "e": torch.randint(3, (6,))}


def all_kinds_of_heads() -> UncertaintyWeightedLoss:
    return UncertaintyWeightedLoss(
        {
            "a": "softmax",
            "n": HeteroscedasticGaussianHead(),
            "e": ScaledSoftmaxHead(exact=True),
            "r": "laplace",
        }
    )


def step_of_all_kinds(loss_fn: UncertaintyWeightedLoss) -> None:
    logits = torch.randn(6, 3, requires_grad=True)
    pair = torch.randn(2, 6, requires_grad=True)
    loss_fn({"a": logits, "n": tuple(pair), "e": logits, "r": leaf(2.0)}, LABELS).total.backward()


@pytest.mark.parametrize("options", [{}, {"estimator": "closed_form"}, {"constraint": "unit_sum"}])
@pytest.mark.parametrize("kind", ["reduced", "scene"])
def test_once_all_have_started_nothing_is_read(options, kind):
    loss_fn = UncertaintyWeightedLoss(
        {"semantic": "softmax", "instance": "laplace", "depth": "gaussian"}, **options
    )

    def step() -> None:
        if kind == "scene":
            loss_fn(*scene_batch()).total.backward()
        else:
            loss_fn(leaves([1.0, 2.0, 3.0])).total.backward()

    step(), step()  # steps 1 and 2 may look
    for _ in range(10):
        with CountReads() as reads:
            step(), loss_fn.sigmas(), loss_fn.weights()
        assert reads.num_reads == 0


def test_likelihoods_without_a_closed_form_do_not_keep_the_start_pending():
    loss_fn = all_kinds_of_heads()
    step_of_all_kinds(loss_fn), step_of_all_kinds(loss_fn)
    for _ in range(10):
        with CountReads() as reads:
            step_of_all_kinds(loss_fn)
        assert reads.num_reads == 0


def steps_with_a_read(step: Callable[[], object], num_steps: int) -> set[int]:
    found = set()
    for i in range(1, num_steps + 1):
        with CountReads() as reads:
            step()
        if reads.num_reads:
            found.add(i)
    return found


@both_estimators
def test_a_pending_start_looks_only_when_the_number_of_steps_has_doubled(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    found = steps_with_a_read(lambda: loss_fn({"a": leaf(1.0), "b": None}), 40)
    assert found <= {1, 2, 4, 8, 16, 32}


def test_a_task_that_starts_late_ends_the_looks_too():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    for step in range(64):
        loss_fn({"a": leaf(1.0), "b": leaf(1.0) if step > 20 else None})
    with CountReads() as reads:
        for _ in range(100):
            loss_fn(leaves([1.0, 1.0]))
    assert reads.num_reads == 0


@both_estimators
def test_frozen_heads_do_not_keep_the_host_looking(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    loss_fn.freeze()
    assert steps_with_a_read(lambda: loss_fn(leaves([4.0, 3.0])), 40) <= {1, 2, 4, 8, 16, 32}
