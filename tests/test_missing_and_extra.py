"""What other people's models hand in: nan targets, zeros for "no objects", entries of no task."""

import copy
import math

import pytest
import torch
from hypothesis import given

from tests.scene import CountReads, leaf
from tests.strategies import binary_batches, regression_batches
from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticGaussianHead,
    HeteroscedasticLaplaceHead,
    LaplaceHead,
    ScaledSigmoidHead,
    UncertaintyWeightedLoss,
)

PAIR = {"boxes": "laplace", "classes": "softmax"}
NOISY = [HeteroscedasticGaussianHead, HeteroscedasticLaplaceHead]


@pytest.mark.parametrize("head_cls", [GaussianHead, LaplaceHead, ScaledSigmoidHead, *NOISY])
@given(batch=binary_batches(torch.float32))
def test_a_nan_target_is_a_missing_one(head_cls, batch):
    def gradient_of(head, target, mask):
        prediction = batch.prediction.clone().requires_grad_()
        given = (prediction, 0.3 * prediction) if head_cls in NOISY else prediction
        loss = head(given, target, mask)
        loss.backward()
        return loss.detach(), prediction.grad

    also = torch.rand(batch.mask.shape) < 0.7
    missing = torch.where(batch.mask, batch.target, math.nan)
    for mask in (None, also, also.float()):
        both = batch.mask if mask is None else batch.mask & also
        found = gradient_of(head_cls(ignore_nan=True), missing, mask)
        expected = gradient_of(head_cls(), batch.target, both)
        torch.testing.assert_close(found, expected)


@given(batch=regression_batches(torch.float32))
def test_without_ignore_nan_a_nan_target_is_seen(batch):
    target = batch.target.clone()
    target.view(-1)[0] = math.nan
    assert GaussianHead()(batch.prediction, target).isnan()


def test_an_exact_zero_counts_as_no_labels():
    loss_fn = UncertaintyWeightedLoss(PAIR, zero_is_missing=True)
    reference = UncertaintyWeightedLoss(PAIR)
    boxes = leaf(0.0)
    losses = loss_fn({"boxes": boxes, "classes": leaf(2.0)})
    expected = reference({"boxes": None, "classes": leaf(2.0)})
    losses.total.backward()
    assert losses.total.item() == expected.total.item()
    assert losses.errors["boxes"].isnan()
    assert losses.counts["boxes"] == 0
    assert boxes.grad == 0
    assert loss_fn["boxes"].log_var.grad == 0
    assert loss_fn["boxes"].num_batches_tracked == 0, "nothing has started it"
    loss_fn({"boxes": leaf(3.0), "classes": leaf(2.0)})
    assert loss_fn.weights()["boxes"].item() == pytest.approx(1 / 3)


def test_a_missing_zero_needs_no_graph():
    # Without objects a detector may return a new tensor, `torch.zeros(())`: no sigma trains on it.
    loss_fn = UncertaintyWeightedLoss(PAIR, zero_is_missing=True)
    classes = leaf(2.0)
    losses = loss_fn({"boxes": torch.zeros(()), "classes": classes})
    losses.total.backward()
    assert losses.counts == {"boxes": 0, "classes": 1}
    assert classes.grad.item() == pytest.approx(1 / 4)  # 1 / sigma^2, with sigma^2 = 2 * 2


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_zero_sets_no_sigma_from_a_first_batch_without_objects(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator, zero_is_missing=True)
    loss_fn.initialize_from({"boxes": leaf(0.0), "classes": leaf(2.0)})
    assert loss_fn.sigmas()["boxes"] == 1, "where a sigma starts that no loss has set"
    loss_fn({"boxes": leaf(5.0), "classes": leaf(2.0)})
    assert loss_fn.weights()["boxes"].item() == pytest.approx(1 / 5)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_to_find_a_zero_the_host_waits_for_nothing(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator, zero_is_missing=True)
    for _ in range(2):  # a start from data may look
        loss_fn({"boxes": leaf(1.0), "classes": leaf(2.0)})
    with CountReads() as reads:
        for boxes in (0.0, 1.0, 0.0):
            loss_fn({"boxes": leaf(boxes), "classes": leaf(2.0)}).total.backward()
    assert reads.num_reads == 0


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_half_of_the_batches_without_objects_change_no_weight(estimator):
    # A detector that returns 0 for images without objects used to double the weight of its boxes.
    torch.manual_seed(0)
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator, zero_is_missing=["boxes"])
    groups = loss_fn.param_groups()
    optimizer = torch.optim.Adam(groups) if groups else None
    for step in range(400):
        boxes = 0.0 if step % 2 else 0.5 * (1 + 0.1 * torch.randn(()).item())
        losses = loss_fn({"boxes": leaf(boxes), "classes": leaf(1.0)})
        losses.total.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()
    assert loss_fn.weights()["boxes"].item() == pytest.approx(2, rel=0.1)


def test_only_the_named_tasks_may_be_missing_by_a_zero():
    loss_fn = UncertaintyWeightedLoss(PAIR, zero_is_missing=["boxes"])
    losses = loss_fn({"boxes": leaf(0.0), "classes": leaf(0.0)})
    assert losses.counts == {"boxes": 0, "classes": 1}


def test_channels_may_be_missing_one_by_one():
    head = LaplaceHead(num_channels=3)
    loss_fn = UncertaintyWeightedLoss({"c": head}, zero_is_missing=True)
    losses = loss_fn({"c": torch.tensor([1.0, 0.0, 3.0], requires_grad=True)})
    assert losses.counts["c"].tolist() == [1, 0, 1]
    assert loss_fn.weights()["c"][[0, 2]].tolist() == pytest.approx([1, 1 / 3])


def test_extra_entries_raise_unless_told_otherwise():
    found = {"boxes": leaf(1.0), "classes": leaf(2.0), "cardinality_error": torch.tensor(7)}
    with pytest.raises(ValueError, match=r"unknown: \['cardinality_error'\]"):
        UncertaintyWeightedLoss(PAIR)(found)
    losses = UncertaintyWeightedLoss(PAIR, extra="ignore")(found)
    assert list(losses.tasks) == ["boxes", "classes"]
    with pytest.raises(TypeError, match=r"Task 'cardinality_error'.*floating-point"):
        UncertaintyWeightedLoss(PAIR, extra="add")(found)
    with pytest.raises(ValueError, match=r"missing: \['classes'\]"):
        UncertaintyWeightedLoss(PAIR, extra="ignore")({"boxes": leaf(1.0), "more": leaf(1.0)})


def test_added_losses_have_weight_one_and_are_part_of_the_result():
    loss_fn = UncertaintyWeightedLoss(PAIR, extra="add")
    auxiliary = leaf(5.0)
    given = {"boxes": leaf(1.0), "auxiliary": auxiliary, "classes": leaf(2.0), "off": None}
    losses = loss_fn(given)
    assert losses.tasks["auxiliary"].item() == 5
    torch.testing.assert_close(losses.total, sum(losses.tasks.values()))
    losses.tasks["auxiliary"] *= 2  # may be changed in place, as those of tasks
    assert auxiliary.item() == 5
    losses.total.backward()
    assert auxiliary.grad == 1
    for by_task in (losses.errors, losses.counts, loss_fn.sigmas(), loss_fn.weights()):
        assert list(by_task) == list(PAIR)


def test_losses_may_be_added_to_those_of_predictions():
    loss_fn = UncertaintyWeightedLoss({"depth": GaussianHead(init_sigma=1.0)}, extra="add")
    prediction, auxiliary = torch.randn(4, requires_grad=True), leaf(5.0)
    losses = loss_fn({"depth": prediction, "auxiliary": auxiliary}, {"depth": torch.zeros(4)})
    expected = 0.5 * prediction.square().mean() + 5
    torch.testing.assert_close(losses.total, expected)
    losses.total.backward()
    assert auxiliary.grad == 1
    torch.testing.assert_close(prediction.grad, prediction.detach() / 4)
    with pytest.raises(ValueError, match=r"'features'.*a scalar, shape \(\). Found shape \(7,\)"):
        loss_fn({"depth": prediction, "features": torch.zeros(7)}, {"depth": torch.zeros(4)})


def test_extra_entries_of_targets_and_masks_are_left_out():
    loss_fn = UncertaintyWeightedLoss({"depth": "laplace"}, extra="ignore")
    prediction = torch.randn(4, requires_grad=True)
    given = {"depth": prediction, "features": torch.randn(7)}
    targets = {"depth": torch.zeros(4), "ids": [1, 2]}
    masks = {"depth": torch.tensor([True, True, False, False]), "padding": None}
    losses = loss_fn(given, targets, masks)
    torch.testing.assert_close(losses.errors["depth"], prediction[:2].abs().mean().detach())


def test_a_loss_that_was_cut_off_is_still_told_from_a_zero_without_a_graph():
    loss_fn = UncertaintyWeightedLoss(PAIR, zero_is_missing=True)
    with pytest.warns(UserWarning, match=r"\['boxes'\] carries no gradient"):
        loss_fn({"boxes": torch.tensor(3.0), "classes": leaf(2.0)})
    loss_fn({"boxes": torch.zeros(()), "classes": leaf(2.0)})


@pytest.mark.parametrize("names", [{"a": 1}.keys(), {"a"}, ("a",), frozenset("a")])
def test_any_collection_of_tasks_may_be_missing_and_the_loss_can_be_copied(names):
    losses = copy.deepcopy(
        UncertaintyWeightedLoss({"a": "gaussian", "b": "gaussian"}, zero_is_missing=names)
    )
    found = losses({"a": leaf(0.0), "b": leaf(1.0)})
    assert float(found.counts["a"]) == 0
    assert found.errors["a"].isnan()


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        ("a", TypeError, "list of tasks"),
        (None, TypeError, "list of tasks"),
        (1, TypeError, "list of tasks"),
        (iter(["a"]), TypeError, "list of tasks"),
        (["c"], ValueError, r"should name tasks of this loss, \['a', 'b'\]\. Found \['c'\]"),
    ],
)
def test_what_names_no_tasks_is_refused(names, error, message):
    with pytest.raises(error, match=message):
        UncertaintyWeightedLoss({"a": "gaussian", "b": "gaussian"}, zero_is_missing=names)
