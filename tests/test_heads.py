"""One battery for every head: a head is done when it has joined ``HEADS``."""

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.distributions import Distribution

from tests.strategies import Batch, classification_batches, regression_batches
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, TaskHead


class Case(NamedTuple):
    """A head, valid inputs for it, and what theory says about it."""

    head: Callable[..., TaskHead]
    batches: st.SearchStrategy[Batch]
    optimum: Callable[[float], float]
    """Sigma at the optimum for a base loss."""
    weighted_optimum: float
    """Weight times base loss at the optimum."""


HEADS = {
    "gaussian": Case(GaussianHead, regression_batches(torch.float32), math.sqrt, 0.5),
    "laplace": Case(LaplaceHead, regression_batches(torch.float32), lambda mae: 2**0.5 * mae, 1.0),
    "softmax": Case(
        ScaledSoftmaxHead,
        classification_batches(torch.float32),
        lambda ce: math.sqrt(2 * ce),
        0.5,
    ),
}
weighing_heads = pytest.mark.parametrize("case", HEADS.values(), ids=HEADS)

HEADS_AND_EXACT = {
    **HEADS,
    "exact softmax": Case(
        lambda **options: ScaledSoftmaxHead(exact=True, **options),
        classification_batches(torch.float32),
        lambda ce: math.nan,
        math.nan,
    ),
}
every_head = pytest.mark.parametrize("case", HEADS_AND_EXACT.values(), ids=HEADS_AND_EXACT)
REGRESSION = [GaussianHead, LaplaceHead]


def spoil(target: Tensor, mask: Tensor) -> Tensor:
    """Return the target with something unusable wherever the mask is False."""
    return torch.where(mask, target, math.nan if target.is_floating_point() else 10_000)


def descend(head: TaskHead, loss: Tensor, steps: int, lr: float = 0.05) -> None:
    optimizer = torch.optim.SGD(head.parameters(), lr=lr, momentum=0.9)
    for _ in range(steps):
        optimizer.zero_grad()
        head.weigh(loss).backward()
        optimizer.step()


@every_head
@given(data=st.data())
def test_nll_with_its_constant_is_minus_the_log_likelihood(case, data):
    batch = data.draw(case.batches)
    head = case.head(init_sigma=data.draw(st.floats(0.3, 3)), full=True)
    if isinstance(head, ScaledSoftmaxHead) and not head.exact:
        return  # The paper's form is no normalised density.
    distribution = head.distribution(batch.prediction)
    assert isinstance(distribution, Distribution)
    expected = -distribution.log_prob(batch.target)[batch.mask].mean()
    torch.testing.assert_close(head(*batch), expected, rtol=1e-5, atol=1e-5)


@every_head
@given(data=st.data())
def test_an_invalid_target_reaches_neither_the_loss_nor_the_gradient(case, data):
    batch = data.draw(case.batches)
    head, prediction = case.head(init_sigma=0.8), batch.prediction.requires_grad_()
    clean = head(prediction, batch.target, batch.mask)
    spoiled = head(prediction, spoil(batch.target, batch.mask), batch.mask)
    assert torch.equal(clean, spoiled)

    spoiled.backward()
    reached = prediction.grad != 0
    if batch.target.shape != prediction.shape:
        reached = reached.any(1)
    assert not reached[~batch.mask].any()
    assert prediction.grad.isfinite().all()
    assert head.log_var.grad.isfinite().all()


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
@given(data=st.data())
def test_order_of_the_elements_changes_nothing(case, data):
    batch = data.draw(case.batches)
    order = torch.randperm(len(batch.target))
    head = case.head()
    torch.testing.assert_close(head(*batch), head(*(tensor[order] for tensor in batch)))


@every_head
@given(data=st.data())
def test_parts_of_a_batch_combine_by_their_counts(case, data):
    batch = data.draw(case.batches)
    head = case.head(init_sigma=1.7)
    parts = [Batch(*(tensor[i : i + 1] for tensor in batch)) for i in range(len(batch.target))]
    counts = [part.mask.sum() for part in parts]
    combined = sum(head(*part) * count for part, count in zip(parts, counts, strict=True))
    torch.testing.assert_close(combined / sum(counts), head(*batch), rtol=1e-5, atol=1e-5)


@weighing_heads
@given(data=st.data())
def test_a_reduced_loss_gives_the_same_as_its_elements(case, data):
    batch = data.draw(case.batches)
    head = case.head(init_sigma=data.draw(st.floats(0.1, 10)), full=True)
    reduced = head.weigh(head.base_loss(*batch).mean())
    torch.testing.assert_close(reduced, head(*batch), rtol=1e-5, atol=1e-5)


@weighing_heads
@given(offset=st.floats(-5, 5), loss=st.floats(0.01, 100))
def test_descent_reaches_the_closed_form_from_any_start(case, offset, loss):
    optimum = case.optimum(loss)
    head = case.head(init_sigma=optimum * math.exp(offset / 2))
    descend(head, torch.tensor(loss), steps=800, lr=0.1)
    assert head.sigma.item() == pytest.approx(optimum, rel=1e-3)
    assert head.weight.item() * loss == pytest.approx(case.weighted_optimum, rel=1e-3)


@pytest.mark.parametrize("init_sigma", [1e-6, 1e6])
@weighing_heads
def test_descent_reaches_the_closed_form_from_the_bounds(case, init_sigma):
    head, loss = case.head(init_sigma=init_sigma), torch.tensor(2.5)
    descend(head, loss, steps=4000, lr=0.1)
    assert head.sigma.item() == pytest.approx(case.optimum(2.5), rel=1e-3)


def test_exact_softmax_finds_the_temperature_of_the_logits():
    # Labels drawn from softmax(f / 4): the temperature, sigma^2, is 4.
    logits = 5 * torch.randn(20_000, 5)
    labels = torch.distributions.Categorical(logits=logits / 4).sample()
    head = ScaledSoftmaxHead(exact=True)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=50, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = head(logits, labels)
        loss.backward()
        return loss

    optimizer.step(closure)
    assert head.sigma.item() ** 2 == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_sigma_is_the_standard_deviation_in_the_units_of_the_target(head_cls):
    noise_cls = torch.distributions.Normal if head_cls is GaussianHead else None
    noise = (
        noise_cls(0, 10) if noise_cls else torch.distributions.Laplace(0, 10 / math.sqrt(2))
    ).sample((100_000,))
    head = head_cls()
    descend(head, head.base_loss(torch.zeros_like(noise), noise).mean(), steps=1500)
    assert head.sigma.item() == pytest.approx(10, rel=0.02)


@pytest.mark.parametrize("head_cls", REGRESSION)
@given(batch=regression_batches(torch.float32), factor=st.floats(0.01, 100))
def test_at_the_optimum_the_gradient_does_not_depend_on_units(head_cls, batch, factor):
    # f(x) = k * w: the gradient to w, shared by all units, is compared.
    def gradient(k: float) -> Tensor:
        w = batch.prediction.clone().requires_grad_()
        error = head_cls().base_loss(k * w, k * batch.target, batch.mask).mean().item()
        sigma = math.sqrt(error) if head_cls is GaussianHead else math.sqrt(2) * error
        head_cls(init_sigma=sigma)(k * w, k * batch.target, batch.mask).backward()
        return w.grad

    torch.testing.assert_close(gradient(factor), gradient(1.0), rtol=1e-3, atol=1e-5)


@every_head
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_log_var_stays_float32_and_the_loss_is_at_least_that(case, dtype):
    batch = _fixed_batch(case)
    head = case.head(init_sigma=0.123).to(dtype)
    assert head.log_var.dtype == torch.float32
    assert head.sigma.item() == pytest.approx(0.123, rel=1e-6)

    prediction = batch.prediction.to(dtype).requires_grad_()
    loss = head(prediction, batch.target, batch.mask)
    loss.backward()
    assert loss.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert loss.shape == ()
    assert head.log_var.grad.dtype == torch.float32
    assert prediction.grad.dtype == dtype
    expected = case.head(init_sigma=0.123)(prediction.detach().double(), *batch[1:])
    torch.testing.assert_close(loss.double(), expected.double(), rtol=1e-3, atol=1e-3)


def _fixed_batch(case: Case) -> Batch:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand((3, 4, 5), generator=generator) < 0.5
    if case.head in REGRESSION:
        prediction, target = torch.randn((2, 3, 4, 5), generator=generator)
        return Batch(prediction, target, mask)
    labels = torch.randint(4, (3, 4, 5), generator=generator)
    return Batch(torch.randn((3, 4, 4, 5), generator=generator), labels, mask)


@every_head
def test_half_and_autocast_leave_log_var_alone(case):
    head, batch = case.head(init_sigma=0.123).half(), _fixed_batch(case)
    assert head.log_var.dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        loss = head(batch.prediction.bfloat16(), *batch[1:])
    loss.backward()
    assert loss.dtype == torch.float32
    assert head.log_var.grad.dtype == torch.float32


@every_head
def test_bfloat16_model_still_trains_its_sigma(case):
    # A bfloat16 log_var would freeze at -0.5 here: its steps are 0.004, Adam's are 0.001.
    head = case.head().bfloat16()
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    batch = _fixed_batch(case)
    before = head.log_var.item()
    for _ in range(20):
        optimizer.zero_grad()
        head(batch.prediction.bfloat16(), *batch[1:]).backward()
        optimizer.step()
    assert abs(head.log_var.item() - before) == pytest.approx(0.02, rel=0.2)


@every_head
def test_compiles_in_one_graph_and_gives_the_same(case):
    head, batch = case.head(init_sigma=0.7), _fixed_batch(case)
    compiled = torch.compile(copy.deepcopy(head), backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(*batch), head(*batch))
    compiled(*batch).backward()
    head(*batch).backward()
    torch.testing.assert_close(compiled.log_var.grad, head.log_var.grad)


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


@weighing_heads
def test_the_bounds_do_not_bias_what_noisy_losses_lead_to(case):
    # Chi-square noise of one degree of freedom: the mean is 1, single losses go from 0 to 20.
    def averaged_log_var(**options) -> float:
        head = case.head(**options)
        optimizer = torch.optim.SGD(head.parameters(), lr=2e-3)
        generator, values = torch.Generator().manual_seed(0), []
        for step in range(6000):
            optimizer.zero_grad()
            head.weigh(torch.randn((), generator=generator).square()).backward()
            optimizer.step()
            if step >= 2000:
                values.append(head.log_var.item())
        return sum(values) / len(values)

    bounded, free = averaged_log_var(), averaged_log_var(sigma_bounds=(1e-30, 1e30))
    assert bounded == free
    assert bounded == pytest.approx(2 * math.log(case.optimum(1.0)), abs=0.1)


@weighing_heads
def test_a_loss_of_zero_stays_finite(case):
    head = case.head()
    descend(head, torch.tensor(0.0), steps=10_000, lr=0.1)
    loss = head.weigh(torch.tensor(1.0))
    assert head.log_var.isfinite().all()
    assert loss.isfinite()
    assert head.sigma.item() == pytest.approx(1e-6)
    # And it comes back when the loss does.
    descend(head, torch.tensor(1.0), steps=1000, lr=0.1)
    assert head.weight.item() == pytest.approx(case.weighted_optimum, rel=0.05)


@weighing_heads
def test_what_is_logged_is_within_the_bounds_and_detached(case):
    head = case.head(sigma_bounds=(0.5, 2))
    with torch.no_grad():
        head.log_var.fill_(50.0)
    assert head.sigma.item() == pytest.approx(2)
    assert head.eval().weigh(torch.tensor(1.0)).isfinite()
    assert head.log_var.item() == 50, "evaluation should leave the parameter alone"
    assert head.sigma.shape == head.weight.shape == ()
    assert not head.sigma.requires_grad
    assert not head.weight.requires_grad


@every_head
def test_reset_puts_sigma_back_to_its_start(case):
    head = case.head(init_sigma=0.3)
    with torch.no_grad():
        head.log_var.add_(1)
    head.reset_parameters()
    assert head.sigma.item() == pytest.approx(0.3)


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_channels_learn_scales_of_their_own(head_cls):
    spread = torch.tensor([0.5, 5.0]).view(2, 1, 1)
    target = spread * torch.randn(64, 2, 8, 8)
    head = head_cls(num_channels=2)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.2, momentum=0.9)
    for _ in range(600):
        optimizer.zero_grad()
        head(torch.zeros_like(target), target).backward()
        optimizer.step()
    alone = [math.sqrt(target[:, i].square().mean()) for i in (0, 1)]
    if head_cls is LaplaceHead:
        alone = [math.sqrt(2) * target[:, i].abs().mean().item() for i in (0, 1)]
    assert head.sigma.tolist() == pytest.approx(alone, rel=1e-3)
    assert head.weight.shape == (2,)
    assert head.distribution(target).scale.shape == target.shape
    torch.testing.assert_close(
        head.weigh(head.base_loss(torch.zeros_like(target), target).mean()),
        head(torch.zeros_like(target), target),
    )


def test_a_mask_may_leave_out_the_channel_axis():
    prediction, target = torch.randn(2, 2, 3, 4, 4)
    mask = torch.rand(2, 4, 4) < 0.5
    head = GaussianHead()
    whole = mask.unsqueeze(1).expand(2, 3, 4, 4)
    assert torch.equal(head(prediction, target, mask), head(prediction, target, whole))


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_a_shape_mismatch_names_both_shapes_and_the_way_out(head_cls):
    with pytest.raises(ValueError, match=r"\(2, 1, 4\).*\(2, 4\).*squeeze\(1\)"):
        head_cls()(torch.zeros(2, 1, 4), torch.zeros(2, 4))


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_an_integer_target_is_refused(head_cls):
    with pytest.raises(TypeError, match=r"`target`.*torch.int64.*target\.float\(\)"):
        head_cls()(torch.zeros(3), torch.zeros(3, dtype=torch.long))


@every_head
def test_a_mask_that_is_not_bool_is_refused(case):
    batch = _fixed_batch(case)
    with pytest.raises(TypeError, match=r"`mask`.*torch.uint8.*mask\.bool\(\)"):
        case.head()(*batch[:2], batch.mask.byte())


@every_head
def test_a_mask_of_another_shape_is_refused(case):
    batch = _fixed_batch(case)
    with pytest.raises(ValueError, match=r"`mask`.*\(3, 4, 5\).*Found `mask.shape = \(3, 4\)`"):
        case.head()(*batch[:2], batch.mask[..., 0])


def test_label_errors_say_what_was_found():
    head, logits = ScaledSoftmaxHead(ignore_index=255), torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"from 0 to 3.*255.*from 0 to 7"):
        head(logits, torch.tensor([[0, 1, 7], [255, 2, 2]]))
    with pytest.raises(TypeError, match=r"integer class labels.*torch.float32.*target\.long\(\)"):
        head(logits, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"\(2, 4, 3\).*\(2, 1, 3\).*squeeze\(1\)"):
        head(logits, torch.zeros(2, 1, 3, dtype=torch.long))


def test_exact_softmax_has_no_reduced_loss():
    with pytest.raises(ValueError, match="should be given predictions and targets"):
        ScaledSoftmaxHead(exact=True).weigh(torch.tensor(1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_sigma": 0.0}, "`init_sigma` should be a finite number above 0. Found 0.0"),
        ({"init_sigma": math.nan}, "`init_sigma`.*Found nan"),
        ({"sigma_bounds": (-1.0, 1.0)}, r"`sigma_bounds\[0\]`.*above 0. Found -1.0"),
        ({"sigma_bounds": (2.0, 1.0)}, "low < high"),
        ({"sigma_bounds": (2.0, 3.0)}, "`init_sigma` should lie within"),
        ({"sigma_bounds": 3.0}, "a pair"),
        ({"num_channels": 0}, "`num_channels`.*at least 1.*Found 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianHead(**options)


def test_softmax_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`class_weight`.*\(C,\).*\(2, 2\)"):
        ScaledSoftmaxHead(class_weight=torch.ones(2, 2))
    for size in (2, 4):
        head = ScaledSoftmaxHead(class_weight=torch.ones(size))
        with pytest.raises(ValueError, match=rf"`class_weight`.*, 3 for .*Found .*\({size},\)"):
            head(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"`label_smoothing`.*\[0, 1\].*Found 2"):
        ScaledSoftmaxHead(label_smoothing=2)


def test_channels_must_fit_the_head():
    with pytest.raises(ValueError, match=r"3 channels on axis 1.*\(4, 2\)"):
        GaussianHead(num_channels=3)(torch.zeros(4, 2), torch.zeros(4, 2))


@weighing_heads
def test_a_reduced_loss_must_be_a_scalar(case):
    with pytest.raises(ValueError, match=r"a scalar, shape \(\). Found shape \(2,\)"):
        case.head().weigh(torch.ones(2))
    with pytest.raises(TypeError, match=r"`loss` should be a tensor. Found float. .*`.item\(\)`"):
        case.head().weigh(1.0)


def test_printing_shows_what_differs_from_the_defaults():
    assert repr(GaussianHead()) == "GaussianHead()"
    assert repr(LaplaceHead(init_sigma=2.0)) == "LaplaceHead(init_sigma=2.0)"
    assert repr(ScaledSoftmaxHead(ignore_index=255)) == "ScaledSoftmaxHead(ignore_index=255)"
