"""Sums of errors that write over their own memory, against PyTorch's plain operations."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from uncertainty_mtl import _errors
from uncertainty_mtl._errors import summed_error

POWERS = {1: torch.abs, 2: torch.square}


@pytest.fixture(autouse=True, scope="module")
def nothing_is_small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_errors, "SMALL", 0)
        yield


def plain(power, prediction, target, mask, axes):
    error = POWERS[power](prediction - target)
    return (error if mask is None else torch.where(mask, error, 0.0)).sum(axes)


@st.composite
def batches(draw):
    shape = draw(st.sampled_from([(5,), (2, 3), (2, 3, 4), (2, 3, 4, 1), (0, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    prediction, target = (torch.randn(shape, generator=generator).double() for _ in range(2))
    mask = torch.rand(shape, generator=generator) > 0.4 if draw(st.booleans()) else None
    axes = None
    if len(shape) > 1 and draw(st.booleans()):
        axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    return prediction.requires_grad_(), target.requires_grad_(), mask, axes


@pytest.mark.parametrize("power", POWERS)
@given(batch=batches())
def test_sum_and_gradients_are_those_of_plain_operations(power, batch):
    prediction, target, *_ = batch
    ours, expected = summed_error(power, *batch), plain(power, *batch)
    torch.testing.assert_close(ours, expected)
    upstream = torch.randn_like(expected)
    torch.testing.assert_close(
        torch.autograd.grad(ours, (prediction, target), upstream),
        torch.autograd.grad(expected, (prediction, target), upstream),
    )


# torch 2.4 uses what it deprecates, for gradients in batches.
@pytest.mark.filterwarnings("ignore:Please use `torch.vmap`:FutureWarning")
@pytest.mark.parametrize("power", POWERS)
@given(batch=batches())
def test_derivatives_of_any_order_match_finite_differences(power, batch):
    prediction, target, mask, axes = batch
    # Away from the kink of the absolute value.
    target = (prediction + torch.where(target > 0, target + 0.1, target - 0.1)).detach()
    inputs = prediction, target.requires_grad_()

    def total(prediction, target):
        return summed_error(power, prediction, target, mask, axes)

    gradcheck(total, inputs, check_batched_grad=True)
    gradgradcheck(total, inputs)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # by torch itself
@pytest.mark.parametrize("power", POWERS)
def test_forward_derivatives_are_those_of_plain_operations(power):
    prediction, target = torch.randn(2, 3), torch.randn(2, 3)
    mask = torch.tensor([[True, False, True]] * 2)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(prediction, torch.randn(2, 3))
        tangents = [
            forward_ad.unpack_dual(total(power, dual, target, mask, None)).tangent
            for total in (summed_error, plain)
        ]
    torch.testing.assert_close(*tangents)


def test_every_sample_of_a_batch_has_its_own_gradient_under_vmap():
    prediction, target = torch.randn(4, 3), torch.randn(4, 3)

    def total(prediction, target):
        return summed_error(2, prediction, target, None, None)

    gradients = torch.func.vmap(torch.func.grad(total))(prediction, target)
    torch.testing.assert_close(gradients, 2 * (prediction - target))


@pytest.mark.parametrize("power", POWERS)
def test_what_is_masked_may_be_anything(power):
    prediction = torch.tensor([1.0, torch.inf, 2.0], requires_grad=True)
    target = torch.tensor([3.0, 0.0, torch.nan])
    total = summed_error(power, prediction, target, torch.tensor([True, False, False]), None)
    total.backward()
    assert total == 2**power
    assert prediction.grad.tolist() == [-1.0 if power == 1 else -4.0, 0.0, 0.0]


def test_the_inputs_are_left_alone():
    prediction, target = torch.randn(5, requires_grad=True), torch.randn(5)
    before = prediction.detach().clone(), target.clone()
    summed_error(1, prediction, target, target > 0, None).backward()
    assert torch.equal(prediction, before[0])
    assert torch.equal(target, before[1])
