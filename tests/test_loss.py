"""Composition: the sum of what each head says, absent tasks, precision, and a training with it."""

import io
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.distributions import Laplace, Normal

from tests.scene import HEADS, KINDS, C, leaf, scene_batch, scene_loss
from tests.strategies import losses as base_losses
from tests.strategies import seeds
from uncertainty_mtl import MultiTaskLoss, UncertaintyWeightedLoss

# Constants stand for losses here; that the loss warns of them is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:No reduced loss carries a gradient")


def test_total_is_the_sum_of_what_each_head_says_alone():
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    losses = loss_fn(predictions, targets, masks)
    assert isinstance(losses, MultiTaskLoss)
    assert losses.total.shape == ()
    for task in loss_fn:
        alone = loss_fn[task](predictions[task], targets[task], masks.get(task))
        torch.testing.assert_close(losses.tasks[task], alone)
    torch.testing.assert_close(losses.total, sum(losses.tasks.values()))


@given(order=st.permutations(["semantic", "instance", "depth"]), seed=seeds)
def test_tasks_are_matched_by_name_whatever_the_order(order, seed):
    loss_fn, batch = scene_loss(), scene_batch(seed)
    shuffled = [{task: values[task] for task in order if task in values} for values in batch]
    permuted = UncertaintyWeightedLoss({task: loss_fn[task] for task in order})
    expected = loss_fn(*batch)
    for losses in (loss_fn(*shuffled), permuted(*batch)):
        torch.testing.assert_close(losses.total, expected.total)
        assert all(torch.equal(losses.tasks[task], expected.tasks[task]) for task in order)


@given(
    tasks=st.lists(st.tuples(st.sampled_from(KINDS), base_losses, st.floats(0.1, 10)), min_size=1),
    priority=st.floats(0.1, 10),
)
def test_a_total_of_reduced_losses_is_the_sum_of_the_formulas(tasks, priority):
    formulas = {
        "gaussian": lambda loss, sigma: loss / (2 * sigma**2) + math.log(sigma),
        "laplace": lambda loss, sigma: math.sqrt(2) * loss / sigma + math.log(sigma),
        "softmax": lambda loss, sigma: loss / sigma**2 + math.log(sigma),
    }
    heads = {f"{i}": HEADS[kind](init_sigma=sigma) for i, (kind, _, sigma) in enumerate(tasks)}
    expected = [formulas[kind](loss, sigma) for kind, loss, sigma in tasks]
    expected[0] *= priority
    loss_fn = UncertaintyWeightedLoss(heads, priorities={"0": priority})
    found = loss_fn([leaf(loss) for _, loss, _ in tasks])
    assert found.total.item() == pytest.approx(sum(expected), rel=1e-4, abs=1e-4)
    for value, each in zip(found.tasks.values(), expected, strict=True):
        assert value.item() == pytest.approx(each, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("num_channels", [None, 3])
@pytest.mark.parametrize(("kind", "scale"), [("gaussian", 1.0), ("laplace", 0.5**0.5)])
def test_a_full_task_is_the_mean_log_probability_of_its_valid_elements(kind, scale, num_channels):
    sigma = torch.tensor([0.3, 1.0, 4.0] if num_channels else [0.3])
    head = HEADS[kind](init_sigma=1.0, num_channels=num_channels, full=True)
    head.log_var.data = 2 * sigma.log()
    loss_fn = UncertaintyWeightedLoss({"a": head, "b": "softmax"}, priorities={"a": 2.5})
    predictions = {"a": torch.randn(2, 3, 4), "b": leaf(1.0)}
    target, mask = torch.randn(2, 3, 4), torch.zeros(2, 3, 4, dtype=torch.bool)
    mask[:, 0], mask[:, 1, :2], mask[1, 2, 3] = True, True, True  # 8, 4 and 1 of 13
    density = {"gaussian": Normal, "laplace": Laplace}[kind]
    log_probability = density(predictions["a"], scale * sigma.view(-1, 1)).log_prob(target)
    found = loss_fn(predictions, {"a": target}, {"a": mask}).tasks["a"]
    assert found.item() == pytest.approx(-2.5 * log_probability[mask].mean().item(), rel=1e-5)
    nothing = loss_fn(predictions, {"a": target}, {"a": torch.zeros_like(mask)})
    absent = loss_fn(predictions, {"a": None})
    assert nothing.tasks["a"].item() == absent.tasks["a"].item() == 0


@pytest.mark.parametrize("absent", ["semantic", "instance", "depth"])
def test_an_absent_task_adds_zero_and_stays_in_the_graph(absent):
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    predictions[absent] = torch.full_like(predictions[absent], math.nan).requires_grad_()
    losses = loss_fn(predictions, {**targets, absent: None}, masks)
    losses.total.backward()
    assert losses.tasks[absent].item() == 0
    assert loss_fn[absent].log_var.grad.item() == 0
    assert torch.equal(predictions[absent].grad, torch.zeros_like(predictions[absent]))
    for task in set(loss_fn) - {absent}:
        assert loss_fn[task].log_var.grad.item() != 0
        assert predictions[task].grad.any()


def test_all_tasks_may_be_absent():
    loss_fn, (predictions, targets, _) = scene_loss(), scene_batch()
    for losses in (
        loss_fn(predictions, dict.fromkeys(targets)),
        loss_fn(dict.fromkeys(targets), dict.fromkeys(targets)),
        loss_fn(dict.fromkeys(targets)),
        loss_fn([None, None, None]),
    ):
        losses.total.backward()
        assert losses.total.item() == 0
        assert all(parameter.grad.item() == 0 for parameter in loss_fn.parameters())


def test_an_absent_reduced_loss_leaves_its_sigma_alone():
    loss_fn = UncertaintyWeightedLoss(
        {"a": HEADS["gaussian"](init_sigma=1.0), "b": HEADS["laplace"](init_sigma=1.0)}
    )
    optimizer = torch.optim.SGD(loss_fn.param_groups(lr=0.1), lr=0.1)
    loss_fn({"a": torch.tensor(3.0), "b": None}).total.backward()
    optimizer.step()
    assert loss_fn["b"].sigma.item() == 1
    assert loss_fn["a"].sigma.item() != 1


def test_raw_and_reduced_tasks_mix_in_one_call():
    loss_fn = UncertaintyWeightedLoss(
        {"depth": HEADS["laplace"](init_sigma=1.0), "contrast": HEADS["gaussian"](init_sigma=1.0)}
    )
    depth, contrast = torch.zeros(5, requires_grad=True), leaf(3.0)
    losses = loss_fn({"depth": depth, "contrast": contrast}, {"depth": torch.ones(5)})
    assert losses.tasks["depth"].item() == pytest.approx(math.sqrt(2))
    assert losses.tasks["contrast"].item() == pytest.approx(1.5)
    losses.total.backward()
    assert contrast.grad.item() == 0.5
    with pytest.raises(ValueError, match=r"`targets`.*missing: \['depth'\]"):
        loss_fn({"depth": depth, "contrast": contrast}, {})
    absent = loss_fn({"depth": depth, "contrast": None}, {"depth": torch.ones(5)})
    assert absent.tasks["contrast"].item() == 0


def test_precision_follows_the_inputs_and_is_at_least_float32():
    loss_fn, (predictions, targets, masks) = scene_loss().bfloat16(), scene_batch()
    half = {task: value.bfloat16() for task, value in predictions.items()}
    assert loss_fn(half, targets, masks).total.dtype == torch.float32
    double = {task: value.double() for task, value in predictions.items()}
    assert loss_fn(double, targets, masks).total.dtype == torch.float64
    mixed = {**predictions, "depth": double["depth"]}
    assert loss_fn(mixed, targets, masks).total.dtype == torch.float64
    assert loss_fn({"semantic": None, "instance": None, "depth": None}).total.dtype == torch.float32


def test_sigmas_and_weights_are_detached_and_by_name():
    loss_fn = scene_loss()
    expected = {"semantic": (1, 1), "instance": (2, math.sqrt(2) / 2), "depth": (0.5, 2)}
    for task, (sigma, weight) in expected.items():
        assert loss_fn.sigmas()[task].item() == pytest.approx(sigma)
        assert loss_fn.weights()[task].item() == pytest.approx(weight)
    assert not any(value.requires_grad for value in loss_fn.weights().values())
    assert not any(value.requires_grad for value in loss_fn.sigmas().values())


def test_accumulated_steps_divide_the_total():
    # Dividing the losses instead, but not the log term, makes sigma^2 too small by their number.
    whole, parts = (
        UncertaintyWeightedLoss({"a": HEADS["gaussian"](init_sigma=1.0)}) for _ in range(2)
    )
    prediction, target = torch.randn(2, 8, 3)
    whole({"a": prediction}, {"a": target}).total.backward()
    for i in range(4):
        rows = slice(2 * i, 2 * i + 2)
        (parts({"a": prediction[rows]}, {"a": target[rows]}).total / 4).backward()
    torch.testing.assert_close(parts["a"].log_var.grad, whole["a"].log_var.grad)


def test_two_forwards_may_come_before_one_backward():
    loss_fn, batch = scene_loss(), scene_batch()
    with torch.no_grad():
        loss_fn["depth"].log_var.fill_(100.0)
    (loss_fn(*batch).total + loss_fn(*batch).total).backward()
    assert all(parameter.grad.isfinite().all() for parameter in loss_fn.parameters())


@settings(max_examples=5)  # 700 steps each
@given(losses=st.lists(base_losses, min_size=2, max_size=6))
def test_learned_weights_do_not_depend_on_the_other_tasks(losses):
    tasks = [f"task {i}" for i in range(len(losses))]
    heads = {task: HEADS["laplace"](init_sigma=1.0) for task in tasks}
    together = UncertaintyWeightedLoss(heads)
    optimizer = torch.optim.SGD(together.param_groups(lr=0.1), momentum=0.9)
    for _ in range(700):
        optimizer.zero_grad()
        together(torch.tensor(losses)).total.backward()
        optimizer.step()
    for task, loss in zip(tasks, losses, strict=True):
        assert together.weights()[task].item() * loss == pytest.approx(C["laplace"], rel=1e-2)


def test_training_resumes_bit_identically_from_a_checkpoint():
    def build():
        torch.manual_seed(0)
        model, loss_fn = nn.Linear(3, 2), UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
        groups = [{"params": model.parameters()}, *loss_fn.param_groups(lr=1e-2)]
        return model, loss_fn, torch.optim.AdamW(groups, lr=1e-2)

    def train(parts, steps):
        model, loss_fn, optimizer = parts
        for step in steps:
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            a, b = model(x).unbind(1)
            losses = loss_fn({"a": a, "b": b}, {"a": x[:, 0], "b": 5 * x[:, 1]})
            optimizer.zero_grad()
            losses.total.backward()
            optimizer.step()

    whole, first, second = build(), build(), build()
    train(whole, range(20))
    train(first, range(10))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    for part, state in zip(second, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(second, range(10, 20))
    for a, b in zip(whole[:2], second[:2], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_reset_reaches_every_head_and_the_start():
    loss_fn = UncertaintyWeightedLoss(
        {"group": scene_loss(), "extra": "laplace"}, estimator="learned"
    )
    built = {name: value.clone() for name, value in loss_fn.state_dict().items()}
    predictions, targets, masks = scene_batch()
    loss_fn(
        {"group": predictions, "extra": leaf(3.0)},
        {"group": targets},
        {"group": masks},
    )
    with torch.no_grad():
        for parameter in loss_fn.parameters():
            parameter.add_(1)
    loss_fn.reset_parameters()
    assert all(torch.equal(loss_fn.state_dict()[name], value) for name, value in built.items())
    loss_fn({"group": None, "extra": leaf(5.0)})
    assert loss_fn.weights()["extra"].item() * 5 == pytest.approx(1), "it starts again"
