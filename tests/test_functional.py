"""The formulas against torch.distributions, closed forms and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Categorical, Laplace, Normal

from tests.likelihoods import gaussian_nll, laplace_nll, scaled_softmax_nll
from tests.strategies import classification_batches, log_vars, regression_batches, seeds
from uncertainty_mtl.forms import LAPLACE, SOFTMAX, BaseLoss
from uncertainty_mtl.functional import (
    cross_entropy,
    mean_nll,
    temper,
)

likelihoods = pytest.mark.parametrize(
    ("nll", "distribution", "constant"),
    [
        (gaussian_nll, lambda f, s: Normal(f, torch.exp(s / 2)), math.log(2 * math.pi) / 2),
        (laplace_nll, lambda f, s: Laplace(f, torch.exp(s / 2) / math.sqrt(2)), math.log(2) / 2),
    ],
    ids=["gaussian", "laplace"],
)


@likelihoods
@given(batch=regression_batches(), s=log_vars)
def test_loss_is_minus_the_log_likelihood_less_its_constant(nll, distribution, constant, batch, s):
    expected = -distribution(batch.prediction, s).log_prob(batch.target).mean()
    torch.testing.assert_close(nll(batch.prediction, batch.target, s), expected - constant)
    torch.testing.assert_close(nll(batch.prediction, batch.target, s, full=True), expected)


@likelihoods
@given(batch=regression_batches(), s=log_vars)
def test_mean_runs_over_the_valid_elements(nll, distribution, constant, batch, s):
    log_prob = distribution(batch.prediction, s).log_prob(batch.target)
    expected = -log_prob[batch.mask].mean()
    torch.testing.assert_close(nll(*batch[:2], s, batch.mask, full=True), expected)


@likelihoods
@given(batch=regression_batches(), seed=seeds)
def test_each_channel_may_have_a_scale_of_its_own(nll, distribution, constant, batch, seed):
    num_channels = batch.prediction.shape[1]
    assume(num_channels > 1)
    s = torch.randn(num_channels, generator=torch.Generator().manual_seed(seed)).double()
    per_element = s.view(-1, *[1] * (batch.prediction.ndim - 2)).expand_as(batch.prediction)
    log_prob = distribution(batch.prediction, per_element).log_prob(batch.target)
    expected = -log_prob[batch.mask].mean()
    torch.testing.assert_close(nll(*batch[:2], s, batch.mask, full=True), expected)


@likelihoods
@given(batch=regression_batches(), s=log_vars, factor=st.floats(1e-3, 1e3))
def test_changing_units_shifts_the_loss_by_the_log_of_the_factor(
    nll, distribution, constant, batch, s, factor
):
    metres = nll(*batch[:2], s)
    others = nll(factor * batch.prediction, factor * batch.target, s + 2 * math.log(factor))
    torch.testing.assert_close(others, metres + math.log(factor))


@likelihoods
@given(batch=regression_batches(), s=log_vars)
def test_gradients_match_finite_differences(nll, distribution, constant, batch, s):
    inputs = (batch.prediction.requires_grad_(), batch.target, s.requires_grad_(), batch.mask)
    assert gradcheck(nll, inputs)
    assert gradgradcheck(nll, inputs)


@given(batch=classification_batches(), s=log_vars)
def test_exact_softmax_is_minus_the_categorical_log_likelihood(batch, s):
    logits = (batch.prediction / torch.exp(s)).movedim(1, -1)
    log_prob = Categorical(logits=logits).log_prob(batch.target)
    torch.testing.assert_close(
        scaled_softmax_nll(*batch[:2], s, batch.mask, exact=True), -log_prob[batch.mask].mean()
    )


@given(batch=classification_batches(), s=log_vars)
def test_papers_softmax_form_weighs_the_cross_entropy_of_the_unscaled_logits(batch, s):
    valid = batch.mask
    logits = batch.prediction.movedim(1, -1)[valid]
    expected = torch.exp(-s) * F.cross_entropy(logits, batch.target[valid]) + s / 2
    torch.testing.assert_close(scaled_softmax_nll(*batch[:2], s, valid), expected.squeeze())


@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
@given(batch=classification_batches())
def test_both_softmax_forms_are_the_cross_entropy_at_sigma_one(batch, exact):
    found = scaled_softmax_nll(*batch[:2], torch.zeros(1, dtype=torch.float64), exact=exact)
    torch.testing.assert_close(found, F.cross_entropy(*batch[:2]))


@given(batch=classification_batches(), s=log_vars)
def test_tempered_logits_are_those_divided_by_the_variance(batch, s):
    torch.testing.assert_close(temper(batch.prediction, s), batch.prediction / s.exp())
    half = temper(batch.prediction.bfloat16(), s)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, (batch.prediction.bfloat16().double() / s.exp()).float())


@given(batch=classification_batches(), s=log_vars)
def test_exact_softmax_stays_within_the_bounds_of_the_approximation(batch, s):
    beta, num_classes = torch.exp(-s), batch.prediction.shape[1]
    exact = scaled_softmax_nll(*batch[:2], s, exact=True)
    difference = exact - beta * F.cross_entropy(*batch[:2])
    low, high = sorted([0.0, ((1 - beta) * math.log(num_classes)).item()])
    assert low - 1e-9 <= difference.item() <= high + 1e-9


@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
@settings(max_examples=10)  # each takes a second
@given(batch=classification_batches(), s=log_vars)
def test_softmax_gradients_match_finite_differences(batch, s, exact):
    inputs = (batch.prediction.requires_grad_(), batch.target, s.requires_grad_(), batch.mask)
    assert gradcheck(lambda *args: scaled_softmax_nll(*args, exact=exact), inputs)
    assert gradgradcheck(lambda *args: scaled_softmax_nll(*args, exact=exact), inputs)


@given(
    batch=classification_batches(),
    smoothing=st.sampled_from([0.0, 0.1, 1.0]),
    weighted=st.booleans(),
    seed=seeds,
)
def test_base_loss_of_the_softmax_is_that_of_pytorch(batch, smoothing, weighted, seed):
    num_classes = batch.prediction.shape[1]
    generator = torch.Generator().manual_seed(seed)
    weight = 0.1 + torch.rand(num_classes, generator=generator).double() if weighted else None
    ignored = torch.where(batch.mask, batch.target, 255)
    expected = F.cross_entropy(
        batch.prediction, ignored, weight, ignore_index=255, label_smoothing=smoothing
    )
    options = {"class_weight": weight, "label_smoothing": smoothing}
    by_label = cross_entropy(batch.prediction, ignored, ignore_index=255, **options)
    by_mask = cross_entropy(*batch, **options)
    torch.testing.assert_close(by_label.mean(), expected)
    torch.testing.assert_close(by_mask.mean(), expected)


@likelihoods
def test_the_penalty_is_paid_once_per_component(nll, distribution, constant):
    # A map of two-component vectors without any error: 0.5 * s is left for each component. With one
    # such term for the pair, sigma^2 would come out twice too large.
    zeros, s = torch.zeros(5, 2, 3, 3), torch.tensor([0.7])
    assert nll(zeros, zeros, s).item() == pytest.approx(0.35)
    mask = torch.zeros(5, 3, 3, dtype=torch.bool)
    mask[0, 1, 2] = True
    assert nll(zeros, zeros, s, mask).item() == pytest.approx(0.35)


@given(s=log_vars, losses=st.lists(st.floats(0.1, 10), min_size=2, max_size=2))
def test_the_mean_of_channels_weighs_each_by_its_elements(s, losses):
    # Three elements of one channel and one of the other, each with an error of its own.
    summed = torch.tensor([3 * losses[0], losses[1]], dtype=torch.float64)
    base = BaseLoss(summed, torch.tensor([3.0, 1.0], dtype=torch.float64))
    scales = torch.cat([s, -s])
    elements = [
        torch.exp(-scale) * loss + scale / 2 for scale, loss in zip(scales, losses, strict=True)
    ]
    expected = (3 * elements[0] + elements[1]) / 4
    torch.testing.assert_close(mean_nll(SOFTMAX, base, scales), expected)


def test_the_mean_over_no_element_is_exactly_zero():
    base = BaseLoss(torch.zeros(()), torch.zeros(()))
    s = torch.tensor([2.0], requires_grad=True)
    nll = mean_nll(LAPLACE, base, s, constant=3.0)
    nll.backward()
    assert nll.item() == 0
    assert s.grad.item() == 0
