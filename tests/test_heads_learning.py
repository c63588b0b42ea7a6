"""Where descent takes the sigma of a head, from which start, and how it stays within its bounds."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Laplace, Normal

from tests.test_heads import REGRESSION, every_head, fixed_batch, weighing_heads
from uncertainty_mtl import (
    GaussianHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    TaskHead,
    UncertaintyWeightedLoss,
)
from uncertainty_mtl.forms import BaseLoss


def descend(head: TaskHead, loss: Tensor, steps: int, lr: float = 0.05) -> None:
    optimizer = torch.optim.SGD(head.parameters(), lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        head.weigh(loss).backward()
        optimizer.step()


@pytest.mark.parametrize("loss", [0.01, 100.0])
@pytest.mark.parametrize("init_sigma", [1e-6, 1e6])
@weighing_heads
def test_descent_reaches_the_closed_form_from_any_start(case, init_sigma, loss):
    head = case.head(init_sigma=init_sigma)
    descend(head, torch.tensor(loss), steps=800, lr=0.1)
    assert head.sigma.item() == pytest.approx(case.optimum(loss), rel=1e-3)
    assert head.weight.item() * loss == pytest.approx(case.weighted_optimum, rel=1e-3)


@weighing_heads
@given(loss=st.floats(0.01, 100), count=st.integers(1, 1000))
def test_a_base_loss_sets_the_optimum(case, loss, count):
    head = case.head()
    head.set_to_optimum(BaseLoss(torch.tensor(loss * count), torch.tensor(float(count))))
    assert head.sigma.item() == pytest.approx(case.optimum(loss), rel=1e-4)
    assert head.weight.item() * loss == pytest.approx(case.weighted_optimum, rel=1e-4)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -1.0, 0.0])
@weighing_heads
def test_a_loss_that_is_not_usable_sets_nothing(case, loss):
    head = case.head(init_sigma=0.3)
    head.set_to_optimum(BaseLoss(torch.tensor(loss), torch.tensor(1.0)))
    assert head.sigma.item() == pytest.approx(0.3)
    head.set_to_optimum(BaseLoss(torch.tensor(0.0), torch.tensor(0.0)))
    assert head.sigma.item() == pytest.approx(0.3)


def test_exact_softmax_finds_the_temperature_of_the_logits():
    # Labels drawn from softmax(f / 4): the temperature, sigma^2, is 4.
    logits = 5 * torch.randn(20_000, 5)
    labels = Categorical(logits=logits / 4).sample()
    head = ScaledSoftmaxHead(exact=True)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = head(logits, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert head.sigma.item() ** 2 == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize(
    ("head_cls", "noise"),
    [(GaussianHead, Normal(0.0, 10.0)), (LaplaceHead, Laplace(0.0, 10 / math.sqrt(2)))],
)
def test_sigma_is_the_standard_deviation_in_the_units_of_the_target(head_cls, noise):
    target = noise.sample((100_000,))
    head = head_cls()
    descend(head, head.base_loss(torch.zeros_like(target), target).mean(), steps=400)
    assert head.sigma.item() == pytest.approx(10, rel=0.02)


@every_head
def test_bfloat16_model_still_trains_its_sigma(case):
    # A bfloat16 log_var would freeze at -0.5 here: its steps are 0.004, Adam's are 0.001.
    head = case.head().bfloat16()
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    batch = fixed_batch(case)
    before = head.log_var.item()
    for _ in range(20):
        optimizer.zero_grad()
        head(batch.prediction.bfloat16(), *batch[1:]).backward()
        optimizer.step()
    assert abs(head.log_var.item() - before) == pytest.approx(0.02, rel=0.2)


@weighing_heads
def test_a_huge_first_loss_is_forgotten(case):
    # Without the projection log_var jumps to 977 and comes back at a constant speed.
    head = case.head()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    for step in range(500):
        optimizer.zero_grad()
        head.weigh(torch.tensor(1000.0 if step == 0 else 1.0)).backward()
        optimizer.step()
    assert head.weight.item() == pytest.approx(case.weighted_optimum, rel=0.05)


@pytest.mark.slow
@weighing_heads
def test_the_bounds_do_not_bias_what_noisy_losses_lead_to(case):
    # Chi-square noise of one degree of freedom: the mean is 1, single losses go from 0 to 20.
    head = case.head()
    optimizer = torch.optim.SGD(head.parameters(), lr=2e-3)
    generator, values = torch.Generator().manual_seed(0), []
    for step in range(6000):
        optimizer.zero_grad()
        head.weigh(torch.randn((), generator=generator).square()).backward()
        optimizer.step()
        if step >= 2000:
            values.append(head.log_var.item())
    average = sum(values) / len(values)
    assert average == pytest.approx(2 * math.log(case.optimum(1.0)), abs=0.1)


@weighing_heads
def test_training_puts_a_sigma_within_its_bounds_and_evaluation_only_computes_with_them(case):
    head, loss = case.head(init_sigma=1.0), torch.tensor(3.0, requires_grad=True)
    loss_fn, highest = UncertaintyWeightedLoss({"a": head}), 2 * math.log(1e6)
    expected = case.head(init_sigma=1e6).weigh(loss).item()
    for forward in (head.weigh, lambda loss: loss_fn([loss]).total):
        head.log_var.data.fill_(100.0)
        loss_fn.eval()
        assert forward(loss).item() == pytest.approx(expected)
        assert head.log_var.item() == 100
        loss_fn.train()
        assert forward(loss).item() == pytest.approx(expected)
        assert head.log_var.item() == pytest.approx(highest)


@weighing_heads
def test_a_loss_of_zero_stays_finite(case):
    head = case.head()
    descend(head, torch.tensor(0.0), steps=1000, lr=0.1)
    loss = head.weigh(torch.tensor(1.0))
    assert head.log_var.isfinite().all()
    assert loss.isfinite()
    assert head.sigma.item() == pytest.approx(1e-6)


@weighing_heads
def test_a_frozen_sigma_stays_even_if_other_code_asks_for_its_gradient(case):
    head = case.head(init_sigma=2.0)
    head.freeze()
    head.requires_grad_(True)
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    prediction = torch.ones((), requires_grad=True)
    for _ in range(3):
        optimizer.zero_grad()
        head.weigh(5 * prediction).backward()
        optimizer.step()
    assert head.sigma.item() == pytest.approx(2)
    head.freeze(False)
    head.weigh(torch.tensor(5.0)).backward()
    optimizer.step()
    assert head.sigma.item() != pytest.approx(2, rel=1e-3)


@weighing_heads
def test_reset_goes_back_to_the_start(case):
    head = case.head(init_sigma=0.7)
    descend(head, torch.tensor(3.0), steps=5)
    assert head.sigma.item() != pytest.approx(0.7, rel=1e-3)
    head.reset_parameters()
    assert head.sigma.item() == pytest.approx(0.7)


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_channels_learn_scales_of_their_own(head_cls):
    spread = torch.tensor([0.5, 5.0]).view(2, 1, 1)
    target = spread * torch.randn(64, 2, 8, 8)
    head = head_cls(num_channels=2)
    assert head.sigma.tolist() == [1, 1]
    optimizer = torch.optim.SGD(head.parameters(), lr=0.2, momentum=0.9)
    for _ in range(300):
        optimizer.zero_grad()
        head(torch.zeros_like(target), target).backward()
        optimizer.step()
    channels = target.double().movedim(1, 0).flatten(1)
    if head_cls is GaussianHead:
        optima = channels.square().mean(1).sqrt()
        weights = 1 / (2 * optima.square())
    else:
        optima = math.sqrt(2) * channels.abs().mean(1)
        weights = math.sqrt(2) / optima
    assert head.sigma.tolist() == pytest.approx(optima.tolist(), rel=1e-3)
    assert head.weight.tolist() == pytest.approx(weights.tolist(), rel=1e-3)
    stddev = head.distribution(target).stddev
    assert stddev.shape == target.shape
    torch.testing.assert_close(stddev[3, :, 2, 1], optima.float(), rtol=1e-3, atol=0)
