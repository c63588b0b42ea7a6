"""Compiled losses: one graph from the first step on, the numbers of eager mode, no recompiling."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.scene import (
    PAIR,
    CountReads,
    assert_same_state,
    leaf,
    leaves,
    scene_batch,
    scene_loss,
    state_of,
)
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

SCENE = {"semantic": "softmax", "instance": "laplace", "depth": "gaussian"}
OPTIONS = [
    {},
    {"estimator": "closed_form"},
    {"constraint": "unit_sum"},
    {"estimator": "closed_form", "constraint": "unit_sum"},
    {"form": "liebel_koerner"},
    {"priorities": {"depth": 3.0}},
    {"estimator": "fixed", "weights": {"depth": 0.3}},
    {"estimator": "closed_form", "constraint": "softmax", "temperature": 1.0},
    {"extra": "add", "zero_is_missing": True},
]
main_options = pytest.mark.parametrize("options", OPTIONS[:3], ids=str)
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _forget_graphs():
    torch._dynamo.reset()


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "kind"),
    [*((options, "predictions") for options in OPTIONS), *((o, "reduced") for o in OPTIONS[:3])],
    ids=str,
)
def test_a_training_is_one_graph_from_its_first_step_and_equals_eager_mode(options, kind):
    eager = UncertaintyWeightedLoss(SCENE, **options)
    other = UncertaintyWeightedLoss(SCENE, **options)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(other, backend=counter, fullgraph=True)
    optimizers = [
        torch.optim.SGD([leaf(0.0), *loss_fn.parameters()], lr=0.1) for loss_fn in (eager, other)
    ]
    for seed in range(6):
        results = []
        for loss_fn, optimizer in zip((eager, compiled), optimizers, strict=True):
            batch = scene_batch(seed)
            if kind == "reduced":
                batch = (dict(zip(SCENE, leaves([1.0 + seed, 0.1, 9.0 - seed]), strict=True)),)
            losses = loss_fn(*batch)
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()
            results.append((losses, batch[0]))
        (expected, inputs), (found, compiled_inputs) = results
        assert_same(found.total, expected.total)
        for task in SCENE:
            assert_same(found.tasks[task], expected.tasks[task])
            assert_same(found.errors[task], expected.errors[task])
            assert_same(found.counts[task], expected.counts[task])
            assert_same(compiled_inputs[task].grad, inputs[task].grad)
        for name, value in state_of(eager).items():
            torch.testing.assert_close(
                other.state_dict()[name], value, rtol=1e-5, atol=1e-6, equal_nan=True
            )
    assert counter.frame_count == 1


@pytest.mark.parametrize("absent", [["semantic", "depth"]])
@main_options
def test_absent_tasks_are_part_of_the_graph(options, absent):
    loss_fn = UncertaintyWeightedLoss(SCENE, **options)
    compiled = torch.compile(copy.deepcopy(loss_fn), backend="aot_eager", fullgraph=True)
    predictions, targets, masks = scene_batch()
    targets = {**targets, **dict.fromkeys(absent)}
    expected, losses = loss_fn(predictions, targets, masks), compiled(predictions, targets, masks)
    assert_same(losses.total, expected.total)
    losses.total.backward()
    expected.total.backward()
    for a, b in zip(compiled.parameters(), loss_fn.parameters(), strict=True):
        assert_same(a.grad, b.grad)


def test_a_late_start_happens_in_the_same_graph():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss_fn, backend=counter, fullgraph=True)
    prediction, mask = torch.zeros(4, requires_grad=True), torch.zeros(4, dtype=torch.bool)
    for m in (mask, mask, ~mask, ~mask):
        inputs = [dict.fromkeys(PAIR, x) for x in (prediction, torch.full((4,), 3.0))]
        compiled(*inputs, {"a": m, "b": ~mask}).total.backward()
        assert loss_fn.sigmas()["a"].item() == pytest.approx(3.0 if m.any() else 1.0)
    assert counter.frame_count == 1


@main_options
def test_the_steps_before_and_after_may_be_eager(options):
    loss_fn = UncertaintyWeightedLoss(PAIR, **options)
    expected = UncertaintyWeightedLoss(PAIR, **options)
    compiled = torch.compile(loss_fn, backend="aot_eager", fullgraph=True)
    for step in (compiled, loss_fn, compiled, loss_fn, loss_fn, loss_fn):
        step(leaves([4.0, 3.0])), expected(leaves([4.0, 3.0]))
    for name, value in state_of(expected).items():
        torch.testing.assert_close(loss_fn.state_dict()[name], value, equal_nan=True)
    with CountReads() as reads:
        loss_fn(leaves([4.0, 3.0]))
    assert reads.num_reads == 0


def test_evaluation_compiles_too_and_starts_nothing():
    for options in OPTIONS[:3]:
        loss_fn = UncertaintyWeightedLoss(SCENE, **options).eval()
        before = state_of(loss_fn)
        compiled = torch.compile(loss_fn, backend="aot_eager", fullgraph=True)
        assert_same(compiled(*scene_batch()).total, loss_fn(*scene_batch()).total)
        assert_same_state(state_of(loss_fn), before)


def test_awkward_names_groups_and_channels_compile():
    group = UncertaintyWeightedLoss({"type": "gaussian", "a.b": GaussianHead(num_channels=2)})
    loss_fn = UncertaintyWeightedLoss({"größe": group, "keys": "laplace"}, priorities={"keys": 2.0})
    compiled = torch.compile(copy.deepcopy(loss_fn), backend="aot_eager", fullgraph=True)
    channels = torch.tensor([1.0, 5.0], requires_grad=True)
    losses = {"größe": {"type": leaf(2.0), "a.b": channels}, "keys": leaf(3.0)}
    assert_same(compiled(losses).total, loss_fn(losses).total)


def test_model_and_loss_compile_together_without_recompiling():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.loss_fn = nn.Conv2d(3, 7, 1), scene_loss()

        def forward(self, x, targets, masks):
            y = self.model(x)
            predictions = {"semantic": y[:, :5], "instance": y[:, 5:], "depth": y[:, :1]}
            return self.loss_fn(predictions, targets, masks).total

    counter = CompileCounterWithBackend("aot_eager")
    step = torch.compile(Step(), backend=counter, fullgraph=True)
    for seed in range(3):
        _, targets, masks = scene_batch(seed)
        if seed == 2:
            masks["instance"] = torch.zeros_like(masks["instance"])
        step(torch.randn(2, 3, 4, 4), targets, masks).backward()
    assert counter.frame_count == 1


def inductor_works() -> bool:
    try:
        return torch.compile(lambda x: x + 1)(torch.zeros(1)).item() == 1
    except Exception:  # no C++ compiler: whatever it raises, Inductor cannot be used
        return False


def test_inductor_gives_the_same():
    if not inductor_works():
        pytest.skip("Inductor needs a C++ compiler")
    loss_fn, batch = scene_loss(), scene_batch()
    expected = loss_fn(*batch).total
    compiled = torch.compile(copy.deepcopy(loss_fn), fullgraph=True)
    torch.testing.assert_close(compiled(*batch).total, expected)
