"""What a call returns: totals, tasks, errors and counts, by name."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.scene import PAIR, leaf, leaves, numbers, scene_batch, scene_loss
from tests.strategies import seeds
from uncertainty_mtl import (
    HeteroscedasticGaussianHead,
    LaplaceHead,
    MultiTaskLoss,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
)

OPTIONS = [{}, {"estimator": "closed_form"}, {"constraint": "unit_sum"}, {"form": "symmetric"}]
every_option = pytest.mark.parametrize("options", OPTIONS, ids=str)


def test_a_result_is_read_by_name():
    losses = scene_loss()(*scene_batch())
    assert isinstance(losses, MultiTaskLoss)
    assert losses._fields == ("total", "tasks", "errors", "counts")
    with pytest.raises(ValueError, match="too many values to unpack"):
        total, tasks = losses  # noqa: RUF059


@given(seed=seeds)
def test_errors_and_counts_are_those_of_plain_torch(seed):
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch(seed)
    masks["semantic"] = torch.rand(2, 4, 4) < 0.5
    losses = loss_fn(predictions, targets, masks)
    valid = masks["instance"].unsqueeze(1).expand(2, 2, 4, 4)
    semantic = nn.functional.cross_entropy(
        predictions["semantic"], targets["semantic"].where(masks["semantic"], -100)
    )
    expected = {
        "semantic": semantic,
        "instance": (predictions["instance"] - targets["instance"]).abs()[valid].mean(),
        "depth": (predictions["depth"] - targets["depth"]).square().mean(),
    }
    for task, error in expected.items():
        torch.testing.assert_close(losses.errors[task], error.detach(), equal_nan=True)
    assert numbers(losses.counts) == {
        "semantic": masks["semantic"].sum().item(),
        "instance": valid.sum().item(),
        "depth": 32,
    }
    assert not any(value.requires_grad for value in [*losses.errors.values()])
    assert not any(value.requires_grad for value in [*losses.counts.values()])


@every_option
def test_tasks_sum_to_the_total(options):
    heads = {"semantic": "softmax", "instance": "laplace", "depth": "gaussian"}
    loss_fn = UncertaintyWeightedLoss(heads, **options)
    for absent in ([], ["depth"], ["semantic", "instance"], list(heads)):
        predictions, targets, masks = scene_batch()
        targets |= dict.fromkeys(absent)
        losses = loss_fn(predictions, targets, masks)
        assert list(losses.tasks) == list(losses.errors) == list(losses.counts) == list(heads)
        torch.testing.assert_close(losses.total, torch.stack([*losses.tasks.values()]).sum())


def test_each_task_can_be_differentiated_by_itself():
    loss_fn, batch = scene_loss(), scene_batch()
    losses = loss_fn(*batch)
    for task, loss in losses.tasks.items():
        found = torch.autograd.grad(
            loss, [*batch[0].values()], retain_graph=True, materialize_grads=True
        )
        reached = [name for name, grad in zip(batch[0], found, strict=True) if grad.any()]
        assert reached == [task]


def test_without_labels_the_error_is_nan_and_the_count_0():
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    masks["instance"] = torch.zeros(2, 4, 4, dtype=torch.bool)
    losses = loss_fn(predictions, {**targets, "depth": None}, masks)
    assert losses.errors["depth"].isnan()
    assert losses.errors["instance"].isnan()
    assert losses.errors["semantic"].isfinite()
    assert losses.counts["depth"] == losses.counts["instance"] == 0
    assert losses.tasks["depth"] == losses.tasks["instance"] == 0


def test_reduced_losses_are_their_own_errors():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    losses = loss_fn(leaves([3.0, 0.0]))
    assert numbers(losses.errors) == {"a": 3, "b": 0}
    assert numbers(losses.counts) == {"a": 1, "b": 1}
    again = loss_fn({"a": None, "b": leaf(math.inf)})
    assert again.errors["a"].isnan()
    assert again.errors["b"].isinf()
    assert again.counts["a"] == 0
    assert numbers(losses.errors) == {"a": 3, "b": 0}, "an earlier result stays as it was"


def test_channels_have_errors_and_counts_of_their_own():
    loss_fn = UncertaintyWeightedLoss({"a": LaplaceHead(num_channels=3), "b": "gaussian"})
    target = torch.tensor([[1.0, 2.0, 5.0], [3.0, 2.0, 5.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    losses = loss_fn({"a": torch.zeros(2, 3), "b": leaf(1.0)}, {"a": target}, {"a": mask})
    torch.testing.assert_close(
        losses.errors["a"], torch.tensor([2.0, 2.0, math.nan]), equal_nan=True
    )
    assert losses.counts["a"].tolist() == [2, 1, 0]
    assert losses.tasks["a"].shape == losses.total.shape == losses.errors["b"].shape == ()


def test_weighted_classes_count_by_their_weight():
    head = ScaledSoftmaxHead(class_weight=[1.0, 0.5, 4.0])
    labels, logits = torch.tensor([0, 1, 2, -100]), torch.randn(4, 3)
    losses = UncertaintyWeightedLoss({"a": head})({"a": logits}, {"a": labels})
    expected = nn.functional.cross_entropy(logits, labels, weight=torch.tensor([1.0, 0.5, 4.0]))
    torch.testing.assert_close(losses.errors["a"], expected)
    assert losses.counts["a"].item() == 5.5


def test_a_likelihood_with_its_scale_inside_is_its_own_error():
    loss_fn = UncertaintyWeightedLoss({"a": HeteroscedasticGaussianHead(), "b": "laplace"})
    mean, log_var = torch.randn(2, 5), torch.randn(2, 5)
    target = torch.randn(2, 5)
    losses = loss_fn({"a": (mean, log_var), "b": leaf(1.0)}, {"a": target})
    expected = (0.5 * (log_var + (mean - target).square() * torch.exp(-log_var))).mean()
    torch.testing.assert_close(losses.errors["a"], expected)
    torch.testing.assert_close(losses.tasks["a"], expected)
    assert loss_fn.weights()["a"] == 1
    assert loss_fn.sigmas()["a"].isnan()


def test_priorities_and_forms_leave_errors_alone():
    plain, batch = scene_loss(), scene_batch()
    expected = plain(*batch)
    loss_fn = UncertaintyWeightedLoss(
        {task: plain[task] for task in plain}, form="liebel_koerner", priorities={"depth": 3.0}
    )
    found = loss_fn(*batch)
    for task in plain:
        assert torch.equal(found.errors[task], expected.errors[task])
        assert torch.equal(found.counts[task], expected.counts[task])


def test_tasks_of_groups_come_by_their_way():
    groups = {"a": UncertaintyWeightedLoss({"x": "laplace", "y": "gaussian"}), "b": scene_loss()}
    loss_fn = UncertaintyWeightedLoss({**groups, "c": "softmax"}, priorities={"b": 2.0})
    predictions, targets, masks = scene_batch()
    targets["depth"] = None
    losses = loss_fn(
        {"a": {"x": leaf(2.0), "y": leaf(5.0)}, "b": predictions, "c": leaf(1.0)},
        {"b": targets},
        {"b": masks},
    )
    expected = ["a.x", "a.y", "b.semantic", "b.instance", "b.depth", "c"]
    assert list(losses.errors) == list(losses.counts) == list(loss_fn.sigmas()) == expected
    assert losses.errors["a.x"] == 2
    assert losses.errors["a.y"] == 5
    assert losses.errors["b.depth"].isnan()
    assert losses.counts["b.depth"] == 0
    assert losses.counts["a.y"] == 1
    alone = scene_loss()(predictions, targets, masks)
    torch.testing.assert_close(losses.errors["b.instance"], alone.errors["instance"])
    assert list(losses.tasks) == ["a", "b", "c"]
    torch.testing.assert_close(losses.tasks["b"], 2 * alone.total)
    torch.testing.assert_close(losses.total, sum(losses.tasks.values()))


@every_option
@given(parts=st.integers(1, 5))
def test_errors_of_parts_combine_by_their_counts(options, parts):
    loss_fn = UncertaintyWeightedLoss(PAIR, **options)
    prediction, target = torch.randn(2, 20, 3)
    mask = torch.rand(20, 3) < 0.5
    mask[0] = True
    whole = loss_fn(*[dict.fromkeys(PAIR, x) for x in (prediction, target, mask)])
    found = [
        loss_fn(*[dict.fromkeys(PAIR, x) for x in part])
        for part in zip(*(x.chunk(parts) for x in (prediction, target, mask)), strict=True)
    ]
    for task in PAIR:
        counts = torch.stack([part.counts[task] for part in found])
        summed = torch.stack([part.errors[task] for part in found]).nan_to_num() * counts
        assert counts.sum() == whole.counts[task]
        torch.testing.assert_close(summed.sum() / counts.sum(), whole.errors[task])
