"""Data-dependent noise against torch.distributions, and as a task among others."""

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn
from torch.autograd import gradcheck
from torch.distributions import Laplace, Normal

from tests.strategies import classification_batches, regression_batches, seeds
from uncertainty_mtl import (
    HeteroscedasticGaussianHead,
    HeteroscedasticLaplaceHead,
    HeteroscedasticSoftmaxHead,
    UncertaintyWeightedLoss,
)
from uncertainty_mtl.functional import (
    heteroscedastic_gaussian_nll,
    heteroscedastic_laplace_nll,
    noisy_softmax_nll,
)

regressions = pytest.mark.parametrize(
    ("nll", "head_cls", "distribution"),
    [
        (
            heteroscedastic_gaussian_nll,
            HeteroscedasticGaussianHead,
            lambda f, s: Normal(f, torch.exp(s / 2)),
        ),
        (
            heteroscedastic_laplace_nll,
            HeteroscedasticLaplaceHead,
            lambda f, s: Laplace(f, torch.exp(s / 2) / math.sqrt(2)),
        ),
    ],
    ids=["gaussian", "laplace"],
)


def noise_like(tensor: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)


@regressions
@given(batch=regression_batches(), seed=seeds)
def test_loss_is_minus_the_log_likelihood(nll, head_cls, distribution, batch, seed):
    s = noise_like(batch.prediction, seed)
    expected = -distribution(batch.prediction, s).log_prob(batch.target)[batch.mask].mean()
    pair = (batch.prediction, s)
    torch.testing.assert_close(nll(*pair, batch.target, batch.mask, full=True), expected)
    head = head_cls(full=True)
    torch.testing.assert_close(head(pair, batch.target, batch.mask), expected)
    by_head = -head.distribution(pair).log_prob(batch.target)[batch.mask].mean()
    torch.testing.assert_close(by_head, expected)


@regressions
@given(batch=regression_batches(), seed=seeds)
def test_gradients_match_finite_differences(nll, head_cls, distribution, batch, seed):
    s = noise_like(batch.prediction, seed).requires_grad_()
    assert gradcheck(nll, (batch.prediction.requires_grad_(), s, batch.target, batch.mask))


@regressions
@given(batch=regression_batches(), seed=seeds)
def test_what_is_masked_reaches_nothing(nll, head_cls, distribution, batch, seed):
    s = noise_like(batch.prediction, seed).requires_grad_()
    prediction = batch.prediction.requires_grad_()
    spoiled = torch.where(batch.mask, batch.target, math.nan)
    loss = head_cls()((prediction, s), spoiled, batch.mask)
    loss.backward()
    assert loss.isfinite()
    assert not prediction.grad[~batch.mask].any()
    assert not s.grad[~batch.mask].any()


@regressions
def test_sigma_is_the_mean_of_the_last_batch(nll, head_cls, distribution):
    head, zero = head_cls(), torch.zeros(4)
    s = 2 * torch.tensor([1.0, 3.0, 5.0, 100.0]).log()
    mask = torch.tensor([True, True, False, False])
    head((zero, s), zero, mask)
    assert head.sigma.item() == pytest.approx(2)
    assert not head.sigma.requires_grad
    head((zero, s), zero, torch.zeros(4, dtype=torch.bool))
    assert head.sigma.item() == pytest.approx(2), "a batch without labels has no sigma"
    assert list(head.parameters()) == []
    assert head.state_dict() == {}


@regressions
def test_a_network_finds_noise_that_grows_with_its_input(nll, head_cls, distribution):
    x = torch.rand(8000, 1) * 2
    sigma = 0.2 + x
    target = distribution(torch.zeros_like(x), 2 * sigma.log()).sample()
    network = nn.Sequential(nn.Linear(1, 32), nn.ReLU(), nn.Linear(32, 2))
    head, optimizer = head_cls(), torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(400):
        optimizer.zero_grad()
        head(network(x).split(1, dim=1), target).backward()
        optimizer.step()
    found = head.distribution(network(x).split(1, dim=1)).stddev
    assert ((found / sigma).log().abs().mean()) < 0.1
    assert head.sigma.item() == pytest.approx(sigma.mean().item(), rel=0.05)


@given(batch=classification_batches(), seed=seeds)
def test_without_noise_the_noisy_softmax_is_the_cross_entropy(batch, seed):
    logits = batch.prediction
    quiet = torch.full_like(logits[:, :1], -60.0)
    expected = nn.functional.cross_entropy(logits, torch.where(batch.mask, batch.target, -100))
    found = noisy_softmax_nll(logits, quiet, batch.target, batch.mask, num_samples=3)
    torch.testing.assert_close(found, expected)


def test_the_noisy_softmax_is_the_logarithm_of_the_mean_probability():
    # Two classes: the difference of the logits is normal, and the mean of a sigmoid of a normal
    # variable is integrated numerically.
    f, sigma = torch.tensor([[0.3, -0.5]]).double(), 1.5
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    difference = (f[0, 0] - f[0, 1]) + math.sqrt(2) * sigma * x
    expected = -torch.log(torch.trapezoid(torch.sigmoid(difference) * density, x))
    noise = torch.full((1, 1), 2 * math.log(sigma)).double()
    found = noisy_softmax_nll(f, noise, torch.tensor([0]), num_samples=40_000)
    assert found.item() == pytest.approx(expected.item(), rel=0.02)

    head = HeteroscedasticSoftmaxHead(num_samples=20_000)
    probability = head.distribution((f, noise)).probs[0, 0]
    assert probability.item() == pytest.approx(math.exp(-expected), rel=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_noise_per_element_or_per_class_trains(channels):
    logits = torch.randn(4, 3, 5, requires_grad=True)
    noise = torch.zeros(4, channels, 5, requires_grad=True)
    target = torch.randint(3, (4, 5))
    target[0, 0] = 255
    head = HeteroscedasticSoftmaxHead(ignore_index=255)
    head((logits, noise), target).backward()
    assert noise.grad[:, :, 1:].any()
    assert not noise.grad[0, :, 0].any()
    assert not logits.grad[0, :, 0].any()
    assert head.sigma.item() == pytest.approx(1)


def test_both_kinds_of_noise_mix_in_one_loss():
    loss_fn = UncertaintyWeightedLoss(
        {
            "depth": HeteroscedasticLaplaceHead(),
            "normals": "gaussian",
            "semantic": HeteroscedasticSoftmaxHead(),
        }
    )
    pair = (torch.randn(4, 1, 3, requires_grad=True), torch.zeros(4, 1, 3, requires_grad=True))
    logits = (torch.randn(4, 2, 3, requires_grad=True), torch.zeros(4, 1, 3, requires_grad=True))
    predictions = {"depth": pair, "normals": torch.randn(4, 3), "semantic": logits}
    targets = {
        "depth": torch.randn(4, 1, 3),
        "normals": torch.randn(4, 3),
        "semantic": torch.randint(2, (4, 3)),
    }
    loss_fn.initialize_from(predictions, targets)
    losses = loss_fn(predictions, targets)
    torch.testing.assert_close(losses.total, sum(losses.tasks.values()))
    loss_fn.check_optimizer(torch.optim.SGD(loss_fn.param_groups(), lr=0.1))
    assert list(loss_fn.state_dict()) == ["heads.normals.log_var"]
    loss_fn.load_state_dict(loss_fn.state_dict())

    absent = loss_fn(predictions, {**targets, "depth": None})
    absent.total.backward()
    assert absent.tasks["depth"].item() == 0
    assert all(torch.equal(part.grad, torch.zeros_like(part)) for part in pair)


@regressions
def test_it_compiles_in_one_graph(nll, head_cls, distribution):
    head, pair = head_cls(), tuple(torch.randn(2, 4, 3))
    target, mask = torch.randn(4, 3), torch.rand(4, 3) < 0.5
    compiled = torch.compile(head_cls(), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(pair, target, mask), head(pair, target, mask))
    assert compiled.sigma.item() == pytest.approx(head.sigma.item())


@regressions
def test_a_prediction_that_is_no_pair_is_refused(nll, head_cls, distribution):
    with pytest.raises(
        TypeError, match=r"a pair \(mean, log_var\).*Found Tensor.*chunk\(2, dim=1\)"
    ):
        head_cls()(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match=r"`prediction\[1\]`.*\(3,\).*\(2,\)"):
        head_cls()((torch.zeros(3), torch.zeros(2)), torch.zeros(3))
    with pytest.raises(ValueError, match="should be given predictions and targets"):
        head_cls().weigh(torch.tensor(1.0))


def test_noise_of_another_shape_than_the_logits_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 4, 3\) or \(2, 1, 3\). Found \(2, 2, 3\)"):
        HeteroscedasticSoftmaxHead()(
            (torch.zeros(2, 4, 3), torch.zeros(2, 2, 3)), torch.zeros(2, 3, dtype=torch.long)
        )
