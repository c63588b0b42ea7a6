"""The formulas against torch.distributions, closed forms and finite differences."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Categorical, Laplace, Normal

from tests.strategies import classification_batches, log_vars, regression_batches, seeds
from uncertainty_mtl.functional import (
    cross_entropy,
    gaussian_nll,
    laplace_nll,
    scaled_softmax_nll,
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


@given(batch=classification_batches())
def test_both_softmax_forms_agree_at_sigma_one(batch):
    s = torch.zeros(1, dtype=torch.float64)
    paper, exact = (scaled_softmax_nll(*batch[:2], s, exact=exact) for exact in (False, True))
    torch.testing.assert_close(paper, exact)


@given(batch=classification_batches(), s=log_vars)
def test_exact_softmax_stays_within_the_bounds_of_the_approximation(batch, s):
    beta, num_classes = torch.exp(-s), batch.prediction.shape[1]
    exact = scaled_softmax_nll(*batch[:2], s, exact=True)
    difference = exact - beta * F.cross_entropy(*batch[:2])
    low, high = sorted([0.0, ((1 - beta) * math.log(num_classes)).item()])
    assert low - 1e-9 <= difference.item() <= high + 1e-9


@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
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


@pytest.mark.parametrize("nll", [gaussian_nll, laplace_nll])
def test_two_components_count_as_two_elements(nll):
    # 0.5 * s for each component: with one such term for the pair, sigma^2 would be twice too large.
    prediction, target = torch.zeros(5, 2, 3, 3), torch.randn(5, 2, 3, 3)
    s = torch.tensor([0.7])
    x, y = (nll(prediction[:, i], target[:, i], s) for i in (0, 1))
    torch.testing.assert_close(nll(prediction, target, s), (x + y) / 2)
