"""Groups of tasks, heads that serve several tasks, and priorities."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scene import leaf, numbers, scene_batch, scene_loss
from tests.strategies import losses as base_losses
from uncertainty_mtl import GaussianHead, LaplaceHead, UncertaintyWeightedLoss

# Constants stand for losses here; that the loss warns of them is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:No reduced loss carries a gradient")

both_estimators = pytest.mark.parametrize("estimator", ["learned", "closed_form"])


def test_a_loss_may_be_a_task_of_another():
    def heads():
        return {"x": LaplaceHead(init_sigma=1.0), "y": GaussianHead(init_sigma=3.0)}

    nested = UncertaintyWeightedLoss(
        {"flow": UncertaintyWeightedLoss(heads()), "depth": LaplaceHead(init_sigma=1.0)}
    )
    flat = UncertaintyWeightedLoss({**heads(), "depth": LaplaceHead(init_sigma=1.0)})
    values = {"x": torch.randn(4, 2), "y": torch.randn(4, 2)}
    depth = torch.randn(4, 2)
    mask = torch.tensor([[True, False]]).expand(4, 2)
    zero = torch.zeros(4, 2)
    grouped = nested(
        {"flow": {"x": zero, "y": zero}, "depth": zero},
        {"flow": values, "depth": depth},
        {"flow": {"x": mask}},
    )
    plain = flat(dict.fromkeys(flat, zero), {**values, "depth": depth}, {"x": mask})
    torch.testing.assert_close(grouped.total, plain.total)
    torch.testing.assert_close(grouped.tasks["flow"], plain.tasks["x"] + plain.tasks["y"])
    assert list(nested.sigmas()) == ["flow.x", "flow.y", "depth"]
    assert nested["flow"]["y"].sigma.item() == pytest.approx(3)

    reduced = {"x": torch.tensor(1.0), "y": torch.tensor(2.0)}
    torch.testing.assert_close(
        nested({"flow": reduced, "depth": None}).total, flat({**reduced, "depth": None}).total
    )
    for losses in (
        nested({"flow": None, "depth": None}),
        nested({"flow": {"x": zero, "y": zero}, "depth": zero}, {"flow": None, "depth": None}),
    ):
        losses.total.backward()
        assert losses.total.item() == 0
    assert all(parameter.grad is not None for parameter in nested.parameters())
    nested.check_optimizer(torch.optim.SGD(nested.param_groups(), lr=0.1))


def test_groups_may_hold_groups():
    inner = UncertaintyWeightedLoss({"x": "gaussian"})
    middle = UncertaintyWeightedLoss({"in": inner, "y": "laplace"}, priorities={"in": 3.0})
    outer = UncertaintyWeightedLoss({"mid": middle, "z": "softmax"}, priorities={"mid": 2.0})
    losses = outer({"mid": {"in": {"x": leaf(4.0)}, "y": leaf(2.0)}, "z": leaf(1.0)})
    assert numbers(losses.errors) == {"mid.in.x": 4, "mid.y": 2, "z": 1}
    # c / L times the priorities on the way.
    expected = {"mid.in.x": 6 * 0.5 / 4, "mid.y": 2 / 2, "z": 0.5}
    assert numbers(outer.weights()) == pytest.approx(expected)
    losses.total.backward()
    assert [task for task, _ in outer.learned_heads()] == ["mid.in.x", "mid.y", "z"]


def test_a_group_keeps_its_own_estimator_and_form():
    group = UncertaintyWeightedLoss({"x": "laplace"}, estimator="closed_form", form="symmetric")
    loss_fn = UncertaintyWeightedLoss({"g": group, "a": "laplace"})
    loss_fn({"g": {"x": leaf(4.0)}, "a": leaf(4.0)})
    # e^s = L in the symmetric form; sigma = sqrt(2) L as a likelihood.
    assert numbers(loss_fn.sigmas()) == pytest.approx({"g.x": 2, "a": 4 * math.sqrt(2)})
    assert [task for task, _ in loss_fn.learned_heads()] == ["a"]


def test_a_task_of_a_group_is_asked_of_the_group():
    group = UncertaintyWeightedLoss({"size": "laplace"})
    loss_fn = UncertaintyWeightedLoss({"boxes": group, "depth": "laplace"})
    with pytest.raises(ValueError, match=r"Found 'boxes.size'. .* ask `loss_fn\['boxes'\]`"):
        loss_fn.freeze("boxes.size")
    loss_fn["boxes"].freeze("size")
    assert loss_fn["boxes"]["size"].frozen
    with pytest.raises(ValueError, match=r"Found 'dept'\.$"):
        loss_fn.freeze("dept")


def test_an_error_within_a_group_names_the_way_to_the_task():
    loss_fn = UncertaintyWeightedLoss({"scene": scene_loss()})
    predictions, targets, masks = scene_batch()
    targets = {**targets, "depth": targets["depth"].squeeze(1)}
    with pytest.raises(ValueError, match=r"Task 'scene': Task 'depth': .*squeeze"):
        loss_fn({"scene": predictions}, {"scene": targets}, {"scene": masks})


def test_one_head_serves_two_tasks_only_if_told_to():
    head = LaplaceHead(init_sigma=1.0)
    with pytest.raises(ValueError, match=r"'left' and 'right'.*share_heads=True"):
        UncertaintyWeightedLoss({"left": head, "right": head})
    group = UncertaintyWeightedLoss({"x": head})
    with pytest.raises(ValueError, match=r"'left' and 'g'.*share_heads=True"):
        UncertaintyWeightedLoss({"left": head, "g": group})
    shared = UncertaintyWeightedLoss({"left": head, "right": head}, share_heads=True)
    assert len(list(shared.parameters())) == 1
    shared({"left": torch.tensor(1.0), "right": torch.tensor(1.0)}).total.backward()
    alone = LaplaceHead(init_sigma=1.0)
    alone.weigh(torch.tensor(1.0)).backward()
    torch.testing.assert_close(head.log_var.grad, 2 * alone.log_var.grad)


@both_estimators
def test_tasks_that_share_a_head_learn_one_sigma_for_the_average_of_their_losses(estimator):
    head = GaussianHead(init_sigma=1.0)
    loss_fn = UncertaintyWeightedLoss(
        {"left": head, "right": head}, share_heads=True, estimator=estimator, momentum=1.0
    )
    values = {"left": leaf(2.0), "right": leaf(6.0)}
    optimizer = torch.optim.SGD([leaf(0.0), *loss_fn.parameters()], lr=0.1, momentum=0.9)
    for _ in range(300):
        optimizer.zero_grad()
        loss_fn(values).total.backward()
        optimizer.step()
    assert loss_fn.sigmas()["left"].item() == pytest.approx(2, rel=1e-3)
    loss_fn.reset_parameters()
    loss_fn.initialize_from({"left": leaf(4.0), "right": None})
    assert loss_fn.sigmas()["right"].item() == pytest.approx(2, rel=1e-5)


@given(priority=st.floats(0.1, 10), loss=base_losses)
def test_a_priority_scales_the_task_and_not_its_sigma(priority, loss):
    plain = UncertaintyWeightedLoss({"a": "laplace", "b": "gaussian"})
    loss_fn = UncertaintyWeightedLoss({"a": "laplace", "b": "gaussian"}, priorities={"a": priority})
    values = {"a": leaf(loss), "b": leaf(loss)}
    expected, found = plain(values).tasks, loss_fn(values)
    torch.testing.assert_close(found.tasks["a"], priority * expected["a"])
    torch.testing.assert_close(found.tasks["b"], expected["b"])
    torch.testing.assert_close(found.total, sum(found.tasks.values()))
    assert loss_fn.sigmas() == plain.sigmas()
    found.total.backward()
    assert values["a"].grad.item() == pytest.approx(loss_fn.weights()["a"].item(), rel=1e-5)
    assert values["a"].grad.item() * loss == pytest.approx(priority, rel=1e-4)


def test_a_priority_of_a_group_reaches_its_tasks():
    group = UncertaintyWeightedLoss({"x": GaussianHead(init_sigma=1.0)})
    loss_fn = UncertaintyWeightedLoss({"g": group, "a": "laplace"}, priorities={"g": 3.0})
    assert loss_fn.weights()["g.x"].item() == pytest.approx(1.5)
    loss = leaf(2.0)
    loss_fn({"g": {"x": loss}, "a": None}).total.backward()
    assert loss.grad.item() == pytest.approx(1.5)


def test_the_priority_of_a_group_does_not_reach_a_task_whose_name_begins_alike():
    group = UncertaintyWeightedLoss({"y": "laplace"})
    loss_fn = UncertaintyWeightedLoss({"g": group, "g.x": "laplace"}, priorities={"g": 3.0})
    loss_fn({"g": {"y": leaf(1.0)}, "g.x": leaf(1.0)})
    assert numbers(loss_fn.weights()) == pytest.approx({"g.y": 3.0, "g.x": 1.0})
