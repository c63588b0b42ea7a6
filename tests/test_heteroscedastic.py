"""Data-dependent noise against torch.distributions, and as a task among others."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.distributions import Laplace, Normal

from tests.strategies import classification_batches, regression_batches, seeds
from uncertainty_mtl import (
    HeteroscedasticGaussianHead,
    HeteroscedasticLaplaceHead,
    HeteroscedasticSoftmaxHead,
    UncertaintyWeightedLoss,
)

HEADS = {
    "gaussian": (HeteroscedasticGaussianHead, lambda f, s: Normal(f, torch.exp(s / 2))),
    "laplace": (
        HeteroscedasticLaplaceHead,
        lambda f, s: Laplace(f, torch.exp(s / 2) / math.sqrt(2)),
    ),
}
CONSTANTS = {
    HeteroscedasticGaussianHead: math.log(2 * math.pi) / 2,
    HeteroscedasticLaplaceHead: math.log(2) / 2,
}
regressions = pytest.mark.parametrize(("head_cls", "distribution"), HEADS.values(), ids=HEADS)
rubbish = st.sampled_from([math.nan, math.inf, -math.inf])


def noise_like(tensor: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)


@regressions
@given(batch=regression_batches(), seed=seeds)
def test_loss_is_minus_the_log_likelihood(head_cls, distribution, batch, seed):
    pair = batch.prediction, noise_like(batch.prediction, seed)
    log_prob = distribution(*pair).log_prob(batch.target)
    expected = -log_prob[batch.mask].mean()
    head = head_cls(full=True)
    torch.testing.assert_close(head(pair, batch.target, batch.mask), expected)
    torch.testing.assert_close(head(pair, batch.target), -log_prob.mean())
    less_constant = head_cls()(pair, batch.target, batch.mask)
    torch.testing.assert_close(less_constant, expected - CONSTANTS[head_cls])
    torch.testing.assert_close(head.distribution(pair).log_prob(batch.target), log_prob)


@regressions
@given(seed=seeds)
def test_a_mask_may_leave_out_the_channel_axis(head_cls, distribution, seed):
    generator = torch.Generator().manual_seed(seed)
    mean, s, target = torch.randn(3, 2, 3, 4, 5, generator=generator)
    mask = torch.rand(2, 4, 5, generator=generator) < 0.5
    log_prob = distribution(mean, s).log_prob(target).movedim(1, -1)[mask]
    found = head_cls(full=True)((mean, s), target, mask)
    torch.testing.assert_close(found, -log_prob.sum() / max(1, log_prob.numel()))


@regressions
@given(batch=regression_batches(), seed=seeds, value=rubbish)
def test_gradients_match_finite_differences(head_cls, distribution, batch, seed, value):
    head, s = head_cls(), noise_like(batch.prediction, seed)
    inputs = [torch.where(batch.mask, x, value).requires_grad_() for x in (batch.prediction, s)]
    target = torch.where(batch.mask, batch.target, value)

    def nll(mean: Tensor, log_var: Tensor) -> Tensor:
        return head((mean, log_var), target, batch.mask)

    assert gradcheck(nll, inputs)
    assert gradgradcheck(nll, inputs)


@regressions
@given(batch=regression_batches(), seed=seeds, value=rubbish)
def test_what_is_masked_reaches_nothing(head_cls, distribution, batch, seed, value):
    inputs = [x.requires_grad_() for x in (batch.prediction, noise_like(batch.prediction, seed))]
    expected = -distribution(*inputs).log_prob(batch.target)[batch.mask].mean()
    # The network may overflow where nobody looks, and the target be missing.
    spoiled = [torch.where(batch.mask, x.detach(), value).requires_grad_() for x in inputs]
    target = torch.where(batch.mask, batch.target, value)
    found = head_cls(full=True)(tuple(spoiled), target, batch.mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, spoiled), torch.autograd.grad(expected, inputs)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@regressions
def test_half_precision_is_computed_in_float32(head_cls, distribution, dtype):
    mean, s = torch.randn(2, 2, 1, 100, 150).to(dtype)
    target = torch.randn(2, 1, 100, 150)
    found = head_cls(full=True)((mean.requires_grad_(), s), target)
    expected = -distribution(mean.detach().double(), s.double()).log_prob(target.double()).mean()
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    assert mean.grad.dtype == dtype


@regressions
def test_the_head_has_no_sigma_of_its_own(head_cls, distribution):
    head, pair = head_cls(), (torch.zeros(4), torch.ones(4))
    assert list(head.parameters()) == []
    assert head.state_dict() == {}
    head(pair, torch.zeros(4))
    assert head.sigma.isnan()
    assert head.weight.item() == 1


@regressions
def test_a_predicted_sigma_stays_within_its_bounds(head_cls, distribution):
    s = 2 * torch.tensor([0.01, 1.0, 1000.0]).log()
    head, zero = head_cls(sigma_bounds=(0.1, 10.0), full=True), torch.zeros(3)
    expected = distribution(zero, 2 * torch.tensor([0.1, 1.0, 10.0]).log())
    torch.testing.assert_close(head((zero, s), zero), -expected.log_prob(zero).mean())
    torch.testing.assert_close(head.distribution((zero, s)).stddev, expected.stddev)


@regressions
def test_a_network_finds_noise_that_grows_with_its_input(head_cls, distribution):
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


@given(batch=classification_batches(), label=st.sampled_from([-7, 99]))
def test_without_noise_the_noisy_softmax_is_the_cross_entropy(batch, label):
    logits = batch.prediction
    quiet = torch.full_like(logits[:, :1], -60.0)
    valid = logits.movedim(1, -1)[batch.mask], batch.target[batch.mask]
    target = torch.where(batch.mask, batch.target, label)
    head = HeteroscedasticSoftmaxHead(num_samples=3, sigma_bounds=(1e-12, 1.0))
    found = head((logits, quiet), target, batch.mask)
    torch.testing.assert_close(found, nn.functional.cross_entropy(*valid))


def test_the_noisy_softmax_is_the_logarithm_of_the_mean_probability():
    # Two classes: the difference of the logits is normal, and the mean of a sigmoid of a normal
    # variable is integrated numerically.
    f, sigma = torch.tensor([[0.3, -0.5]]).double(), 1.5
    x = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    density = torch.exp(-x.square() / 2) / math.sqrt(2 * math.pi)
    difference = (f[0, 0] - f[0, 1]) + math.sqrt(2) * sigma * x
    expected = -torch.log(torch.trapezoid(torch.sigmoid(difference) * density, x))
    noise = torch.full((1, 1), 2 * math.log(sigma)).double()
    head = HeteroscedasticSoftmaxHead(num_samples=20_000)
    found = head((f, noise), torch.tensor([0]))
    assert found.item() == pytest.approx(expected.item(), rel=0.02)
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


def test_both_kinds_of_noise_mix_in_one_loss():
    loss_fn = UncertaintyWeightedLoss(
        {
            "depth": HeteroscedasticLaplaceHead(),
            "normals": "gaussian",
            "semantic": HeteroscedasticSoftmaxHead(sigma_bounds=(1e-12, 1.0)),
        }
    )
    pair = (torch.randn(4, 1, 3, requires_grad=True), torch.randn(4, 1, 3, requires_grad=True))
    logits = (torch.randn(4, 2, 3, requires_grad=True), torch.full((4, 1, 3), -60.0))
    normals = torch.randn(4, 3)
    predictions = {"depth": pair, "normals": normals.requires_grad_(), "semantic": logits}
    targets = {"depth": torch.randn(4, 1, 3), "normals": torch.zeros(4, 3)}
    targets["semantic"] = torch.randint(2, (4, 3))
    losses = loss_fn(predictions, targets)
    expected = {
        "depth": -HEADS["laplace"][1](*pair).log_prob(targets["depth"]).mean() - math.log(2) / 2,
        # At its optimum, which the first batch has set: (1 + log MSE) / 2.
        "normals": (1 + normals.detach().square().mean().log()) / 2,
        "semantic": nn.functional.cross_entropy(logits[0], targets["semantic"]),
    }
    torch.testing.assert_close(losses.tasks, expected)
    torch.testing.assert_close(losses.total, sum(expected.values()))
    loss_fn.check_optimizer(torch.optim.SGD(loss_fn.param_groups(), lr=0.1))
    assert {key.split(".")[1] for key in loss_fn.state_dict()} == {"normals"}
    assert [task for task, sigma in loss_fn.sigmas().items() if sigma.isnan()] == [
        "depth",
        "semantic",
    ]

    absent = loss_fn(predictions, {**targets, "depth": None})
    absent.total.backward()
    assert absent.tasks["depth"].item() == 0
    assert all(torch.equal(part.grad, torch.zeros_like(part)) for part in pair)


@regressions
def test_it_compiles_in_one_graph(head_cls, distribution):
    pair = torch.randn(4, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    target, mask = torch.randn(4, 3), torch.rand(4, 3) < 0.5
    compiled = torch.compile(head_cls(full=True), backend="aot_eager", fullgraph=True)
    found = compiled(pair, torch.where(mask, target, math.nan), mask)
    expected = -distribution(*pair).log_prob(target)[mask].mean()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, pair), torch.autograd.grad(expected, pair)
    )


@regressions
def test_a_prediction_that_is_no_pair_is_refused(head_cls, distribution):
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
