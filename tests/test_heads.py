"""One battery for every head: a head is done when it has joined ``HEADS``."""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Categorical, Laplace, Normal

from tests.strategies import Batch, binary_batches, classification_batches, regression_batches
from uncertainty_mtl import (
    GaussianHead,
    LaplaceHead,
    ScaledSigmoidHead,
    ScaledSoftmaxHead,
    TaskHead,
)


class Case(NamedTuple):
    """A head, valid inputs for it, and what theory says about it."""

    head: Callable[..., TaskHead]
    batches: st.SearchStrategy[Batch]
    expected: Callable[[Tensor, Tensor, float], Tensor]
    """The loss of each element for a sigma, with its constant, by another implementation."""
    optimum: Callable[[float], float]
    """Sigma at the optimum for a base loss; nan where there is no base loss."""
    weighted_optimum: float
    """Weight times base loss at the optimum."""


def tempered(logits: Tensor, sigma: float) -> Categorical:
    return Categorical(logits=(logits / sigma**2).movedim(1, -1))


HEADS = {
    "gaussian": Case(
        GaussianHead,
        regression_batches(torch.float32),
        lambda f, y, sigma: -Normal(f, sigma).log_prob(y),
        math.sqrt,
        0.5,
    ),
    "laplace": Case(
        LaplaceHead,
        regression_batches(torch.float32),
        lambda f, y, sigma: -Laplace(f, sigma / math.sqrt(2)).log_prob(y),
        lambda mae: math.sqrt(2) * mae,
        1.0,
    ),
    "softmax": Case(
        ScaledSoftmaxHead,
        classification_batches(torch.float32),
        # The paper's form, which is not a normalised density.
        lambda f, y, sigma: F.cross_entropy(f, y, reduction="none") / sigma**2 + math.log(sigma),
        lambda ce: math.sqrt(2 * ce),
        0.5,
    ),
    "sigmoid": Case(
        ScaledSigmoidHead,
        binary_batches(torch.float32),
        lambda f, y, sigma: (
            F.binary_cross_entropy_with_logits(f, y, reduction="none") / sigma**2 + math.log(sigma)
        ),
        lambda bce: math.sqrt(2 * bce),
        0.5,
    ),
}
HEADS_AND_EXACT = {
    **HEADS,
    "exact softmax": Case(
        lambda **options: ScaledSoftmaxHead(exact=True, **options),
        classification_batches(torch.float32),
        lambda f, y, sigma: -tempered(f, sigma).log_prob(y),
        lambda ce: math.nan,
        math.nan,
    ),
}
NO_DENSITIES = ("softmax", "sigmoid")
DENSITIES = {name: case for name, case in HEADS_AND_EXACT.items() if name not in NO_DENSITIES}
every_head = pytest.mark.parametrize("case", HEADS_AND_EXACT.values(), ids=HEADS_AND_EXACT)
weighing_heads = pytest.mark.parametrize("case", HEADS.values(), ids=HEADS)
REGRESSION = [GaussianHead, LaplaceHead]
sigmas = st.floats(0.3, 3)


def spoil(target: Tensor, mask: Tensor) -> Tensor:
    """Return the target with something unusable wherever the mask is False."""
    return torch.where(mask, target, math.nan if target.is_floating_point() else 10_000)


def fixed_batch(case: Case) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand((3, 4, 5), generator=generator) < 0.5
    if case.head in REGRESSION:
        prediction, target = torch.randn((2, 3, 4, 5), generator=generator)
        return Batch(prediction, target, mask)
    if case.head is ScaledSigmoidHead:
        logits, target = torch.randn((2, 3, 4, 5), generator=generator)
        return Batch(logits, target.sigmoid(), mask)
    labels = torch.randint(4, (3, 4, 5), generator=generator)
    return Batch(torch.randn((3, 4, 4, 5), generator=generator), labels, mask)


@every_head
@given(data=st.data(), sigma=sigmas)
def test_loss_and_gradients_are_those_of_the_valid_elements(case, data, sigma):
    batch = data.draw(case.batches)
    head, prediction = case.head(init_sigma=sigma, full=True), batch.prediction.requires_grad_()
    found = head(prediction, spoil(batch.target, batch.mask), batch.mask)
    expected = case.expected(prediction, batch.target, sigma)[batch.mask].mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (gradient,), (reference,) = (torch.autograd.grad(x, prediction) for x in (found, expected))
    torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-5)


@every_head
@given(data=st.data())
def test_by_itself_a_head_starts_at_one_and_stays_there(case, data):
    batch = data.draw(case.batches)
    head = case.head(full=True)
    expected = case.expected(*batch[:2], 1.0).mean()
    for _ in range(2):
        torch.testing.assert_close(head(*batch[:2]), expected, rtol=1e-5, atol=1e-5)
        assert head.sigma.item() == 1
    assert head.num_batches_tracked.item() == 0, "no loss has set it"


@pytest.mark.parametrize("case", DENSITIES.values(), ids=DENSITIES)
@given(data=st.data(), sigma=sigmas)
def test_the_distribution_is_the_one_that_the_loss_belongs_to(case, data, sigma):
    batch = data.draw(case.batches)
    found = case.head(init_sigma=sigma).distribution(batch.prediction).log_prob(batch.target)
    expected = -case.expected(batch.prediction, batch.target, sigma)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@given(data=st.data(), sigma=sigmas)
def test_the_paper_softmax_has_tempered_probabilities(data, sigma):
    logits = data.draw(classification_batches(torch.float32)).prediction
    found = ScaledSoftmaxHead(init_sigma=sigma).distribution(logits).probs
    torch.testing.assert_close(found, tempered(logits, sigma).probs)


@given(batch=binary_batches(torch.float32), sigma=sigmas)
def test_the_sigmoid_has_tempered_probabilities(batch, sigma):
    found = ScaledSigmoidHead(init_sigma=sigma).distribution(batch.prediction).probs
    torch.testing.assert_close(found, torch.sigmoid(batch.prediction / sigma**2))


@weighing_heads
@given(sigma=sigmas, loss=st.floats(0.01, 10))
def test_a_reduced_loss_is_weighed_like_a_mean_of_elements(case, sigma, loss):
    # One element whose base loss is known: the residual of a regression, or -log softmax.
    if case.head in REGRESSION:
        root = math.sqrt(loss) if case.head is GaussianHead else loss
        element = torch.zeros(1), torch.tensor([root])
    elif case.head is ScaledSigmoidHead:
        # A positive target with logit x: -log sigmoid(x) = log(1 + e^-x).
        element = torch.tensor([-math.log(math.expm1(loss))]), torch.ones(1)
    else:
        # Two classes with logits 0 and x: -log softmax(f)_0 = log(1 + e^x).
        element = torch.tensor([[0.0, math.log(math.expm1(loss))]]), torch.tensor([0])
    expected = case.expected(*element, sigma).mean()
    found = case.head(init_sigma=sigma, full=True).weigh(torch.tensor(loss))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@every_head
@given(data=st.data())
def test_an_empty_mask_adds_exactly_zero(case, data):
    batch = data.draw(case.batches)
    head, prediction = case.head(init_sigma=3.0, full=True), batch.prediction.requires_grad_()
    nothing = torch.zeros_like(batch.mask)
    loss = head(prediction, spoil(batch.target, nothing), nothing)
    loss.backward()
    assert loss.item() == 0
    assert head.log_var.grad.item() == 0
    assert not prediction.grad.any()


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_log_var_stays_float32_and_the_loss_is_at_least_that(case, dtype):
    batch = fixed_batch(case)
    head = case.head(init_sigma=0.123, full=True).to(dtype)
    assert head.log_var.dtype == torch.float32
    assert head.sigma.item() == pytest.approx(0.123, rel=1e-6)

    prediction = batch.prediction.to(dtype).requires_grad_()
    loss = head(prediction, batch.target, batch.mask)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.shape == ()
    assert head.log_var.grad.dtype == torch.float32
    assert prediction.grad.dtype == dtype
    target = batch.target.double() if batch.target.is_floating_point() else batch.target
    expected = case.expected(prediction.detach().double(), target, 0.123)[batch.mask].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@every_head
def test_autocast_leaves_log_var_and_the_loss_in_float32(case):
    head, batch = case.head(init_sigma=0.123, full=True).half(), fixed_batch(case)
    prediction = batch.prediction.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(prediction, *batch[1:])
    loss.backward()
    assert head.log_var.dtype == head.log_var.grad.dtype == torch.float32
    assert loss.dtype == torch.float32
    expected = case.expected(prediction.float(), batch.target, 0.123)[batch.mask].mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


@every_head
def test_compiles_in_one_graph_and_gives_the_same(case):
    head, batch = case.head(init_sigma=0.7, full=True), fixed_batch(case)
    compiled = torch.compile(copy.deepcopy(head), backend="aot_eager", fullgraph=True)
    prediction = batch.prediction.requires_grad_()
    expected = case.expected(prediction, batch.target, 0.7)[batch.mask].mean()
    found = compiled(*batch)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    (gradient,), (reference,) = (torch.autograd.grad(x, prediction) for x in (found, expected))
    torch.testing.assert_close(gradient, reference, rtol=1e-5, atol=1e-5)


@every_head
@given(data=st.data())
def test_order_of_the_elements_changes_nothing(case, data):
    batch = data.draw(case.batches)
    order = torch.randperm(len(batch.target))
    expected = case.expected(*batch[:2], 1.0)[batch.mask].mean()
    found = case.head(full=True)(*(tensor[order] for tensor in batch))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@every_head
@given(data=st.data())
def test_parts_of_a_batch_combine_by_their_counts(case, data):
    batch = data.draw(case.batches)
    head = case.head(init_sigma=1.7, full=True)
    parts = [Batch(*(tensor[i : i + 1] for tensor in batch)) for i in range(len(batch.target))]
    counts = [part.mask.sum() for part in parts]
    combined = sum(head(*part) * count for part, count in zip(parts, counts, strict=True))
    expected = case.expected(*batch[:2], 1.7)[batch.mask].mean()
    torch.testing.assert_close(combined / sum(counts), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("head_cls", REGRESSION)
@given(batch=regression_batches(torch.float32), factor=st.floats(0.01, 100))
def test_at_the_optimum_the_gradient_does_not_depend_on_units(head_cls, batch, factor):
    # The prediction is factor * w: the gradient with respect to w, shared by all units, is compared
    # with that of the logarithm of the error, which is what the optimum minimises.
    w = batch.prediction.clone().requires_grad_()
    error = ((w - batch.target)[batch.mask]).abs()
    mean = error.square().mean() if head_cls is GaussianHead else error.mean()
    share = 0.5 if head_cls is GaussianHead else 1.0
    (expected,) = torch.autograd.grad(share * mean.log(), w)

    optimum = math.sqrt(mean.item()) if head_cls is GaussianHead else math.sqrt(2) * mean.item()
    head = head_cls(init_sigma=factor * optimum)
    (found,) = torch.autograd.grad(head(factor * w, factor * batch.target, batch.mask), w)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_a_mask_may_leave_out_the_channel_axis(head_cls):
    prediction, target = torch.randn(2, 2, 3, 4, 4)
    mask = torch.rand(2, 4, 4) < 0.5
    valid = [tensor.movedim(1, -1)[mask] for tensor in (prediction, target)]
    expected = HEADS[head_cls.__name__.removesuffix("Head").lower()].expected(*valid, 1.0).mean()
    found = head_cls(full=True)(prediction, spoil(target, mask.unsqueeze(1)), mask)
    torch.testing.assert_close(found, expected)


def test_printing_shows_what_differs_from_the_defaults():
    assert repr(GaussianHead()) == "GaussianHead()"
    assert repr(LaplaceHead(init_sigma=2.0)) == "LaplaceHead(init_sigma=2.0)"
    assert repr(ScaledSoftmaxHead(ignore_index=255)) == "ScaledSoftmaxHead(ignore_index=255)"


@pytest.mark.parametrize("exact", [False, True])
def test_labels_whose_class_has_no_weight_give_zero(exact):
    head = ScaledSoftmaxHead(exact=exact, class_weight=[0.0, 1.0], label_smoothing=0.1)
    assert head(torch.randn(3, 2), torch.zeros(3).long()) == 0
