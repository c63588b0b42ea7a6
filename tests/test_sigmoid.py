"""Binary and multi-label tasks: a sigmoid with a learned temperature."""

import copy
import math
import pickle

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Bernoulli

from tests.strategies import binary_batches, seeds
from uncertainty_mtl import ScaledSigmoidHead, ScaledSoftmaxHead, UncertaintyWeightedLoss
from uncertainty_mtl.functional import binary_cross_entropy

POS_WEIGHT = [0.5, 2.0, 3.0, 0.7]
sigmas = st.floats(0.3, 3)


def per_label(logits, target, pos_weight=None):
    """Return PyTorch's loss of each element, with ``pos_weight`` along axis 1."""
    # PyTorch aligns `pos_weight` with the last axis.
    moved = logits.movedim(1, -1), target.movedim(1, -1)
    if pos_weight is not None:
        pos_weight = torch.as_tensor(pos_weight, dtype=logits.dtype)
    errors = F.binary_cross_entropy_with_logits(*moved, reduction="none", pos_weight=pos_weight)
    return errors.movedim(-1, 1)


def assert_same_with_gradient(found, expected, prediction):
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (gradient,), (reference,) = (torch.autograd.grad(x, prediction) for x in (found, expected))
    torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "number", "list", "tensor", "0-dim tensor"])
@given(batch=binary_batches(torch.float32), sigma=sigmas)
def test_the_weighted_cross_entropy_is_that_of_pytorch(kind, batch, sigma):
    num_labels = batch.prediction.shape[1]
    pos_weight = {
        "none": None,
        "number": 2.5,
        "list": POS_WEIGHT[:num_labels],
        "tensor": torch.tensor(POS_WEIGHT[:num_labels]),
        "0-dim tensor": torch.tensor(2.5),
    }[kind]
    head, prediction = (
        ScaledSigmoidHead(init_sigma=sigma, pos_weight=pos_weight),
        batch.prediction.requires_grad_(),
    )
    target = torch.where(batch.mask, batch.target, math.nan)
    errors = per_label(prediction, batch.target, pos_weight)
    expected = errors[batch.mask].mean() / sigma**2 + math.log(sigma)
    assert_same_with_gradient(head(prediction, target, batch.mask), expected, prediction)


@given(batch=binary_batches(torch.float32), sigma=sigmas)
def test_hard_targets_give_the_softmax_of_two_classes(batch, sigma):
    # The second class has the logit, and the first one has 0.
    labels = batch.target.round()
    logits = torch.stack([torch.zeros_like(batch.prediction), batch.prediction], dim=1)
    expected = F.cross_entropy(logits, labels.long()) / sigma**2 + math.log(sigma)
    found = ScaledSigmoidHead(init_sigma=sigma)(batch.prediction, labels)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@given(batch=binary_batches(torch.float32), seed=seeds)
def test_each_label_may_have_a_sigma_of_its_own(batch, seed):
    num_labels = batch.prediction.shape[1]
    generator = torch.Generator().manual_seed(seed)
    log_var = torch.randn(num_labels, generator=generator)
    head, prediction = ScaledSigmoidHead(num_channels=num_labels), batch.prediction.requires_grad_()
    with torch.no_grad():
        head.log_var.copy_(log_var)
    # One term for each element, so the mean counts a label as often as it is valid.
    log_var = log_var.view(-1, *[1] * (prediction.ndim - 2)).expand_as(prediction)
    nll = per_label(prediction, batch.target) * (-log_var).exp() + log_var / 2
    found = head(prediction, batch.target, batch.mask)
    assert_same_with_gradient(found, nll[batch.mask].mean(), prediction)

    probabilities = torch.sigmoid(prediction * (-log_var).exp())
    distribution = head.distribution(prediction)
    assert isinstance(distribution, Bernoulli)
    torch.testing.assert_close(distribution.probs, probabilities)


@given(data=st.data())
def test_nan_targets_are_counted_out_of_each_label(data):
    batch = data.draw(binary_batches(torch.float32))
    num_labels = batch.prediction.shape[1]
    head = ScaledSigmoidHead(num_channels=num_labels, ignore_nan=True)
    base = head.base_loss(batch.prediction, torch.where(batch.mask, batch.target, math.nan))
    valid = batch.mask.movedim(1, -1).reshape(-1, num_labels)
    errors = per_label(batch.prediction, batch.target).movedim(1, -1).reshape(-1, num_labels)
    assert base.num_valid.flatten().tolist() == valid.sum(0).tolist()
    expected = torch.stack([e[v].sum() for e, v in zip(errors.T, valid.T, strict=True)])
    torch.testing.assert_close(base.summed.flatten(), expected)


@settings(max_examples=15)
@given(batch=binary_batches())
def test_gradients_match_finite_differences(batch):
    pos_weight = torch.tensor(POS_WEIGHT[: batch.prediction.shape[1]])

    def mean(logits):
        return binary_cross_entropy(logits, batch.target, batch.mask, pos_weight=pos_weight).mean()

    assert gradcheck(mean, batch.prediction.requires_grad_())
    assert gradgradcheck(mean, batch.prediction)


def test_large_logits_cost_what_they_are_worth():
    # The sigmoid itself would round to 0 or 1, and the logarithm to -inf.
    logits = torch.tensor([1000.0, -1000.0, 1000.0], requires_grad=True)
    loss = ScaledSigmoidHead()(logits, torch.tensor([0.0, 1.0, 1.0]))
    loss.backward()
    assert loss.item() == pytest.approx(2000 / 3)
    assert logits.grad.tolist() == pytest.approx([1 / 3, -1 / 3, 0])


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@given(batch=binary_batches(torch.float32))
def test_a_loss_starts_where_the_weighted_error_is_one_half(estimator, batch):
    # Conversions are known for clicks only, so the mask is part of the task.
    mean = per_label(batch.prediction, batch.target)[batch.mask].mean()
    by_elements = UncertaintyWeightedLoss({"conversion": "sigmoid"}, estimator=estimator)
    losses = by_elements(
        {"conversion": batch.prediction.clone().requires_grad_()},
        {"conversion": batch.target},
        {"conversion": batch.mask},
    )
    assert losses.counts["conversion"].item() == batch.mask.sum().item()
    torch.testing.assert_close(losses.errors["conversion"], mean, rtol=1e-4, atol=1e-6)
    reduced = UncertaintyWeightedLoss({"conversion": "sigmoid"}, estimator=estimator)
    reduced({"conversion": mean.clone().requires_grad_()})
    for loss_fn in (by_elements, reduced):
        sigma, weight = loss_fn.sigmas()["conversion"], loss_fn.weights()["conversion"]
        torch.testing.assert_close(sigma, (2 * mean).sqrt(), rtol=1e-4, atol=1e-6)
        assert (weight * mean).item() == pytest.approx(0.5, rel=1e-3)


def test_the_weights_of_positives_are_settings():
    head = ScaledSigmoidHead(pos_weight=[0.7, 1.3], init_sigma=2.0)
    assert list(head.state_dict()) == list(ScaledSigmoidHead().state_dict())
    assert [name for name, _ in head.named_parameters()] == ["log_var"]
    with torch.device("meta"):
        empty = ScaledSigmoidHead(pos_weight=[0.7, 1.3], init_sigma=2.0)
    empty.to_empty(device="cpu")
    empty.reset_parameters()
    logits, target = torch.randn(5, 2), torch.rand(5, 2)
    expected = per_label(logits, target, [0.7, 1.3]).mean() / 4 + math.log(2)
    copies = [copy.deepcopy(head), pickle.loads(pickle.dumps(head)), empty]  # noqa: S301
    # 0.7 has no exact value in bfloat16: the weights keep their dtype.
    for copied in (head, *copies, copy.deepcopy(head).bfloat16()):
        torch.testing.assert_close(copied(logits, target), expected)


def test_compiles_with_a_sigma_and_a_weight_for_each_label():
    head = ScaledSigmoidHead(num_channels=3, pos_weight=POS_WEIGHT[:3], ignore_nan=True)
    compiled = torch.compile(head, backend="aot_eager", fullgraph=True)
    logits, target = torch.randn(4, 3, 5, requires_grad=True), torch.rand(4, 3, 5)
    missing, weights = torch.rand(4, 3, 5) < 0.3, torch.rand(4, 5)
    used = weights.unsqueeze(1) * ~missing
    expected = (per_label(logits, target, POS_WEIGHT[:3]) * used).sum() / used.sum()
    found = compiled(logits, torch.where(missing, math.nan, target), weights)
    assert_same_with_gradient(found, expected, logits)


@pytest.mark.parametrize("dtype", [torch.long, torch.uint8, torch.bool])
def test_whole_numbers_as_targets_are_to_be_converted(dtype):
    with pytest.raises(TypeError, match=rf"`target`.*{dtype}.*`target\.float\(\)`"):
        ScaledSigmoidHead()(torch.zeros(3), torch.ones(3, dtype=dtype))


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\).*squeeze\(1\)"):
        ScaledSigmoidHead()(torch.zeros(4, 1), torch.zeros(4))


def test_the_weights_of_positives_must_fit_the_labels():
    with pytest.raises(ValueError, match=r"`pos_weight`.*\(C,\).*\(3, 1, 1\)"):
        ScaledSigmoidHead(pos_weight=torch.ones(3, 1, 1))
    # Each of these would broadcast along the last axis.
    head = ScaledSigmoidHead(pos_weight=[1.0, 2.0])
    for shape in ((2,), (5, 3), (5, 3, 2)):
        with pytest.raises(ValueError, match=r"2 channels on axis 1.*`pos_weight`"):
            head(torch.zeros(shape), torch.zeros(shape))


@pytest.mark.parametrize(
    ("logits", "target"),
    [
        (torch.zeros(4), torch.ones(4)),
        (torch.zeros(4), torch.ones(4, dtype=torch.long)),
        (torch.zeros(4), torch.ones(4, dtype=torch.bool)),
        (torch.zeros(4, 1), torch.ones(4)),
        (torch.zeros(4, 3), torch.ones(4, 3)),
        (torch.zeros(4, 3, 5, 5), torch.ones(4, 3, 5, 5)),
    ],
    ids=["binary", "binary int", "binary bool", "column of logits", "multi-label", "map"],
)
def test_a_softmax_given_a_binary_task_points_to_the_sigmoid(logits, target):
    loss_fn = UncertaintyWeightedLoss({"click": "softmax"})
    with pytest.raises((TypeError, ValueError), match=r"Task 'click'.*`ScaledSigmoidHead`"):
        loss_fn({"click": logits}, {"click": target})


def test_a_softmax_given_soft_labels_names_both_ways_out_and_the_first_one_works():
    logits, soft = torch.randn(6, 3, requires_grad=True), torch.rand(6, 3).softmax(1)
    with pytest.raises(TypeError, match=r"mixup.*`F\.cross_entropy\(logits, target\)`") as raised:
        ScaledSoftmaxHead()(logits, soft)
    assert "ScaledSigmoidHead" in str(raised.value)
    assert "argmax" not in str(raised.value), "it would throw the mixture away"

    loss_fn = UncertaintyWeightedLoss({"classes": "softmax"})
    losses = loss_fn({"classes": F.cross_entropy(logits, soft)})
    expected = -(soft * logits.detach().log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses.errors["classes"], expected)


def test_printing_shows_what_differs_from_the_defaults():
    assert repr(ScaledSigmoidHead()) == "ScaledSigmoidHead()"
    assert repr(ScaledSigmoidHead(ignore_nan=True)) == "ScaledSigmoidHead(ignore_nan=True)"


def test_one_weight_in_a_tensor_serves_logits_without_a_channel_axis():
    # The usual way to weigh a binary task: `BCEWithLogitsLoss(pos_weight=torch.tensor([3.0]))`.
    logits, target, weight = torch.randn(6), torch.rand(6), torch.tensor([3.0])
    expected = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    torch.testing.assert_close(ScaledSigmoidHead(pos_weight=weight)(logits, target), expected)


def test_one_logit_with_whole_labels_belongs_to_the_sigmoid():
    labels = torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match=r"at least two classes.*Found one.*`ScaledSigmoidHead`"):
        ScaledSoftmaxHead()(torch.zeros(3, 1), labels)
