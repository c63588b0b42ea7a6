"""Two remedies for means that a predicted noise keeps from being fitted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.strategies import regression_batches
from uncertainty_mtl import HeteroscedasticGaussianHead, HeteroscedasticLaplaceHead

# The weighted error at a log-variance s; the penalty s / 2 is that of both.
WEIGHTED_ERRORS = {
    HeteroscedasticGaussianHead: lambda r, s: 0.5 * (-s).exp() * r.square(),
    HeteroscedasticLaplaceHead: lambda r, s: math.sqrt(2) * (-s / 2).exp() * r.abs(),
}
every_head = pytest.mark.parametrize(("head_cls", "weighted"), WEIGHTED_ERRORS.items())


def gradients(loss, pair):
    return torch.autograd.grad(loss, pair)


@every_head
@given(batch=regression_batches(torch.float32), beta=st.floats(0, 1))
def test_beta_multiplies_the_gradients_of_each_element(head_cls, weighted, batch, beta):
    pair = batch.prediction.requires_grad_(), torch.randn_like(batch.prediction).requires_grad_()
    mean, log_var = pair
    nll = weighted(mean - batch.target, log_var) + log_var / 2
    # By the inverse weight of the error to the power of beta: sigma^2 or sigma.
    by = weighted(torch.ones(()), torch.zeros(())) / weighted(torch.ones(()), log_var)
    expected = gradients((nll * by.detach() ** beta).mean(), pair)
    found = gradients(head_cls(beta=beta)(pair, batch.target), pair)
    for value, reference in zip(found, expected, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-4, atol=1e-5)


@every_head
@given(batch=regression_batches(torch.float32))
def test_with_a_beta_of_1_the_mean_has_the_gradient_of_its_plain_error(head_cls, weighted, batch):
    pair = batch.prediction.requires_grad_(), torch.randn_like(batch.prediction)
    plain = weighted(pair[0] - batch.target, torch.zeros(())).mean()
    found = gradients(head_cls(beta=1)(pair, batch.target), pair[:1])
    torch.testing.assert_close(found, gradients(plain, pair[:1]), rtol=1e-4, atol=1e-5)


@every_head
@given(batch=regression_batches(torch.float32))
def test_a_faithful_mean_has_the_gradient_of_its_plain_error(head_cls, weighted, batch):
    pair = batch.prediction.requires_grad_(), torch.randn_like(batch.prediction).requires_grad_()
    mean, log_var = pair
    residual = mean - batch.target
    plain = weighted(residual, torch.zeros_like(residual)).mean()
    noise = (weighted(residual.detach(), log_var) + log_var / 2).mean()
    for_mean, for_noise = gradients(head_cls(faithful=True)(pair, batch.target), pair)
    torch.testing.assert_close(for_mean, gradients(plain, pair[:1])[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(for_noise, gradients(noise, pair[1:])[0], rtol=1e-4, atol=1e-5)


def error_of_the_mean(head, *, seed: int, shares_layers: bool = True) -> float:
    """Fit a sine with small noise; return the root of the mean squared error of the mean."""
    torch.manual_seed(seed)
    x = torch.linspace(-3, 3, 200).unsqueeze(1)
    clean = 0.4 * torch.sin(math.pi * x)
    target = clean + 0.01 * torch.randn_like(x)
    body = nn.Sequential(nn.Linear(1, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
    mean, log_var = nn.Linear(64, 1), nn.Linear(64, 1)
    parameters = [p for module in (body, mean, log_var) for p in module.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=3e-3)
    for _ in range(1500):
        features = body(x)
        for_noise = features if shares_layers else features.detach()
        loss = head((mean(features), log_var(for_noise)), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return (mean(body(x)) - clean).square().mean().sqrt().item()


@pytest.mark.slow
@pytest.mark.parametrize("head_cls", WEIGHTED_ERRORS)
def test_a_mean_that_the_plain_likelihood_takes_for_noise_is_fitted(head_cls):
    def error_with(*, shares_layers, **options):
        return error_of_the_mean(head_cls(**options), seed=0, shares_layers=shares_layers)

    plain = error_with(shares_layers=True)
    assert error_with(beta=0.5, shares_layers=True) < 0.5 * plain
    # As in the paper, the variance does not train the layers that the mean uses, too. The plain
    # likelihood gets the same network, so that only the remedy differs.
    plain = error_with(shares_layers=False)
    assert error_with(faithful=True, shares_layers=False) < 0.5 * plain


def test_values_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`beta`.*at least 0 and at most 1. Found 1.5"):
        HeteroscedasticGaussianHead(beta=1.5)
    with pytest.raises(ValueError, match=r"`beta` and `faithful`.*one of them"):
        HeteroscedasticLaplaceHead(beta=0.5, faithful=True)
