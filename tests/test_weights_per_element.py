"""A floating mask is a weight per element: the mean is divided by the sum of the weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tests.scene import CountReads
from tests.strategies import binary_batches, classification_batches, regression_batches, seeds
from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticGaussianHead,
    HeteroscedasticLaplaceHead,
    HeteroscedasticSoftmaxHead,
    LaplaceHead,
    ScaledSigmoidHead,
    ScaledSoftmaxHead,
    TaskHead,
    UncertaintyWeightedLoss,
)


class Case(NamedTuple):
    """A head, batches for it, and its error element by element by another implementation."""

    head: Callable[..., TaskHead]
    batches: Any
    error: Callable[[Tensor, Tensor], Tensor]


UNUSABLE = [math.nan, math.inf, -math.inf]
CLASS_WEIGHT = [1.0, 2.0, 0.5, 3.0, 1.5, 0.7]

CASES = {
    "gaussian": Case(
        GaussianHead, regression_batches(torch.float32), lambda f, y: (f - y).square()
    ),
    "laplace": Case(LaplaceHead, regression_batches(torch.float32), lambda f, y: (f - y).abs()),
    "sigmoid": Case(
        ScaledSigmoidHead,
        binary_batches(torch.float32),
        lambda f, y: F.binary_cross_entropy_with_logits(f, y, reduction="none"),
    ),
    "softmax": Case(
        ScaledSoftmaxHead,
        classification_batches(torch.float32),
        lambda f, y: F.cross_entropy(f, y, reduction="none"),
    ),
    "smoothed softmax": Case(
        lambda: ScaledSoftmaxHead(label_smoothing=0.2),
        classification_batches(torch.float32),
        lambda f, y: F.cross_entropy(f, y, reduction="none", label_smoothing=0.2),
    ),
    "exact softmax": Case(
        # At a sigma of its own: at 1 the temperature would change nothing.
        lambda: ScaledSoftmaxHead(exact=True, init_sigma=1.5),
        classification_batches(torch.float32),
        lambda f, y: F.cross_entropy(f / 1.5**2, y, reduction="none"),
    ),
}
every_head = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
regressions = pytest.mark.parametrize("head_cls", [GaussianHead, LaplaceHead])
NOISY = {
    HeteroscedasticGaussianHead: lambda r, s: 0.5 * ((-s).exp() * r.square() + s),
    HeteroscedasticLaplaceHead: lambda r, s: math.sqrt(2) * (-s / 2).exp() * r.abs() + s / 2,
}


def weights_like(mask: Tensor, seed: int) -> Tensor:
    """Return weights above 0 where the mask is True, and 0 elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    return (0.1 + torch.rand(mask.shape, generator=generator)) * mask


def spoiled(target: Tensor, weights: Tensor) -> Tensor:
    bad = math.nan if target.is_floating_point() else 10_000
    return torch.where(weights > 0, target, bad)


@every_head
@given(data=st.data(), seed=seeds)
def test_the_mean_is_divided_by_the_sum_of_the_weights(case, data, seed):
    batch = data.draw(case.batches)
    weights, prediction = weights_like(batch.mask, seed), batch.prediction.requires_grad_()
    error = case.error(prediction, batch.target)
    expected = (error * weights).sum() / weights.sum()
    found = case.head()(prediction, spoiled(batch.target, weights), weights)
    # At sigma 1 the Gaussian's weight is 1/2, and the Laplace's sqrt(2).
    factor = {"GaussianHead": 0.5, "LaplaceHead": math.sqrt(2)}
    expected = expected * factor.get(type(case.head()).__name__, 1.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    (gradient,), (reference,) = (torch.autograd.grad(x, prediction) for x in (found, expected))
    torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@every_head
@given(data=st.data(), seed=seeds)
def test_whole_weights_are_elements_that_occur_that_often(case, data, seed):
    batch = data.draw(case.batches)
    times = torch.randint(
        0, 4, batch.mask.shape, generator=torch.Generator().manual_seed(seed)
    ).clamp(min=batch.mask.long())
    prediction, target = batch.prediction, batch.target
    if target.shape == prediction.shape:
        flat, labels = prediction.reshape(-1), target.reshape(-1)
    else:
        flat, labels = prediction.movedim(1, -1).flatten(0, -2), target.reshape(-1)
    often = times.reshape(-1)
    repeated = flat.repeat_interleave(often, 0), labels.repeat_interleave(often, 0)
    torch.testing.assert_close(
        case.head()(prediction, target, times.float()),
        case.head()(*repeated),
        rtol=1e-4,
        atol=1e-5,
    )


@every_head
def test_weights_of_zero_leave_nothing(case):
    head = case.head()
    softmax = isinstance(head, ScaledSoftmaxHead)
    prediction = torch.randn((2, 3, 4), requires_grad=True)
    target = torch.zeros((2, 4), dtype=torch.long) if softmax else torch.full((2, 3, 4), math.nan)
    loss = head(prediction, target, torch.zeros(target.shape))
    loss.backward()
    assert loss.item() == 0
    assert not prediction.grad.any()
    assert head.log_var.grad.item() == 0


@regressions
@given(batch=regression_batches(torch.float32), seed=seeds, rubbish=st.sampled_from(UNUSABLE))
def test_a_prediction_of_weight_zero_may_be_anything(head_cls, batch, seed, rubbish):
    weights = weights_like(batch.mask, seed)
    prediction = torch.where(weights > 0, batch.prediction, rubbish).requires_grad_()
    target = torch.where(weights > 0, batch.target, rubbish)
    kept = batch.prediction[batch.mask].requires_grad_()
    error = CASES[head_cls.__name__.removesuffix("Head").lower()].error(
        kept, batch.target[batch.mask]
    )
    factor = 0.5 if head_cls is GaussianHead else math.sqrt(2)
    mean = factor * (error * weights[batch.mask]).sum() / weights.sum()
    found = head_cls()(prediction, target, weights)
    torch.testing.assert_close(found, mean, rtol=1e-4, atol=1e-5)
    (gradient,), (reference,) = (
        torch.autograd.grad(found, prediction),
        torch.autograd.grad(mean, kept),
    )
    torch.testing.assert_close(gradient[batch.mask], reference, rtol=1e-4, atol=1e-5)
    assert not gradient[~batch.mask].any()


@regressions
@given(seed=seeds)
def test_channels_have_weighted_means_of_their_own(head_cls, seed):
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn((2, 4, 3, 5), generator=generator)
    weights = torch.rand((4, 5), generator=generator)  # without the channel axis
    base = head_cls(num_channels=3).base_loss(prediction, target, weights)
    error = (prediction - target).abs() if head_cls is LaplaceHead else (prediction - target) ** 2
    expanded = weights.unsqueeze(1).expand_as(error)
    torch.testing.assert_close(base.summed, (error * expanded).sum((0, 2)))
    torch.testing.assert_close(base.num_valid, expanded.sum((0, 2)))


@given(batch=classification_batches(torch.float32), seed=seeds)
def test_class_weights_and_weights_of_elements_multiply(batch, seed):
    num_classes = batch.prediction.shape[1]
    head = ScaledSoftmaxHead(class_weight=CLASS_WEIGHT[:num_classes])
    weights = weights_like(batch.mask, seed)
    both = weights * torch.tensor(CLASS_WEIGHT)[batch.target]
    error = F.cross_entropy(batch.prediction, batch.target, reduction="none")
    found = head(batch.prediction, batch.target, weights)
    torch.testing.assert_close(found, (error * both).sum() / both.sum(), rtol=1e-4, atol=1e-5)


@given(batch=classification_batches(torch.float32), seed=seeds)
def test_with_smoothing_and_class_weights_a_whole_weight_still_repeats_an_element(batch, seed):
    settings = {
        "label_smoothing": 0.3,
        "weight": torch.tensor(CLASS_WEIGHT[: batch.prediction.shape[1]]),
        "ignore_index": 0,
    }
    generator = torch.Generator().manual_seed(seed)
    times = torch.randint(0, 4, batch.target.shape, generator=generator)
    often = times.reshape(-1)
    logits = batch.prediction.movedim(1, -1).flatten(0, -2).repeat_interleave(often, 0)
    labels = batch.target.reshape(-1).repeat_interleave(often)
    head = ScaledSoftmaxHead(label_smoothing=0.3, class_weight=settings["weight"], ignore_index=0)
    found = head(batch.prediction, batch.target, times.float())
    # PyTorch's mean over no element is nan; a head's is 0.
    expected = F.cross_entropy(logits, labels, **settings).nan_to_num(0.0)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("head_cls", "nll"), NOISY.items())
@given(batch=regression_batches(torch.float32), seed=seeds)
def test_predicted_noise_is_weighted_too(head_cls, nll, batch, seed):
    weights = weights_like(batch.mask, seed)
    log_var = torch.randn(batch.prediction.shape)
    expected = (nll(batch.prediction - batch.target, log_var) * weights).sum() / weights.sum()
    pair = batch.prediction, torch.where(weights > 0, log_var, math.nan)
    found = head_cls()(pair, spoiled(batch.target, weights), weights)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_noise_on_the_logits_is_weighted_too():
    logits, labels = torch.randn(50, 4), torch.randint(4, (50,))
    weights, quiet = torch.rand(50), torch.full((50, 1), -30.0)
    expected = (F.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()
    found = HeteroscedasticSoftmaxHead()((logits, quiet), labels, weights)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_loss_counts_the_weights_and_starts_at_their_mean(estimator):
    loss_fn = UncertaintyWeightedLoss({"depth": "gaussian"}, estimator=estimator)
    prediction, target = torch.randn((2, 6, 5))
    weights = torch.rand(6, 5) * (torch.rand(6, 5) > 0.3)
    losses = loss_fn(
        {"depth": prediction.requires_grad_()}, {"depth": target}, {"depth": weights.half()}
    )
    weights = weights.half().float()
    mean = ((prediction - target).square() * weights).sum() / weights.sum()
    torch.testing.assert_close(losses.counts["depth"], weights.sum())
    torch.testing.assert_close(losses.errors["depth"], mean.detach())
    torch.testing.assert_close(loss_fn.sigmas()["depth"], mean.sqrt().detach())


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_weights_make_the_host_wait_for_nothing(estimator):
    loss_fn = UncertaintyWeightedLoss(
        {"depth": "laplace", "clicks": "sigmoid", "classes": "softmax"}, estimator=estimator
    )

    def step():
        logits, weights = torch.randn(4, 3, requires_grad=True), torch.rand(4, 3).round()
        predictions = dict.fromkeys(["depth", "clicks", "classes"], logits)
        targets = {
            "depth": torch.zeros(4, 3),
            "clicks": torch.ones(4, 3),
            "classes": torch.tensor([0, 1, 2, 0]),
        }
        masks = {"depth": weights, "clicks": weights, "classes": torch.rand(4)}
        loss_fn(predictions, targets, masks).total.backward()

    step(), step()  # a start from data may look
    with CountReads() as reads:
        for _ in range(5):
            step()
    assert reads.num_reads == 0


def test_whole_numbers_are_no_mask():
    for target in (torch.zeros(4), torch.zeros(4, dtype=torch.long)):
        head = GaussianHead() if target.is_floating_point() else ScaledSoftmaxHead()
        prediction = target if target.is_floating_point() else torch.zeros(4, 3)
        with pytest.raises(TypeError, match=r"`mask`.*weight.*int64.*`mask\.bool\(\)`"):
            head(prediction, target, torch.ones(4, dtype=torch.long))


def test_counts_have_no_graph_even_if_the_weights_are_predicted():
    weights = torch.rand(4, requires_grad=True)
    losses = UncertaintyWeightedLoss({"a": "gaussian"})
    found = losses({"a": torch.randn(4, requires_grad=True)}, {"a": torch.ones(4)}, {"a": weights})
    assert not found.counts["a"].requires_grad
    found.total.backward()
    assert weights.grad is not None
