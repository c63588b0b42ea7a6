"""Sums of errors, a part of the map at a time, against PyTorch's plain operations."""

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
        patch.setattr(_errors, "CPU_PART", 4)
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


@pytest.mark.parametrize("invalid", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("power", POWERS)
def test_what_is_masked_has_no_part_in_value_or_gradient(power, dtype, invalid):
    prediction, target = torch.randn(2, 3, 4, 5, 2).to(dtype).unbind(-1)
    mask = torch.rand(2, 1, 4, 5) > 0.4
    expected = plain(
        power, prediction.masked_fill(~mask, 0), target.masked_fill(~mask, 0), None, (0, 2, 3)
    )
    for spoilt in (0, 1):
        inputs = [
            x.masked_fill(~mask, invalid if k == spoilt else 0).requires_grad_()
            for k, x in enumerate((prediction, target))
        ]
        total = summed_error(power, *inputs, mask, (0, 2, 3))
        torch.testing.assert_close(total, expected)
        for gradient in torch.autograd.grad(total.sum(), inputs):
            assert (gradient[~mask.expand_as(gradient)] == 0).all()


@pytest.mark.parametrize("power", POWERS)
def test_a_gradient_may_be_taken_twice_and_the_second_is_not_scaled_again(power):
    prediction, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    total = summed_error(power, prediction.requires_grad_(), target, None, None)
    first, again = (
        torch.autograd.grad(3 * total, prediction, retain_graph=True)[0] for _ in range(2)
    )
    assert torch.equal(first, again)
    assert first.data_ptr() != again.data_ptr()


@pytest.mark.filterwarnings("ignore:`torch.jit.script`")  # by torch, at the first forward mode
@pytest.mark.parametrize("transform", ["vmap", "per_sample", "jacrev", "hessian", "jvp"])
@pytest.mark.parametrize("power", POWERS)
def test_every_transform_gives_what_plain_operations_give(power, transform):
    torch.manual_seed(0)
    prediction, target = torch.randn(2, 4, 2, 3, 5)
    mask = torch.rand(4, 1, 3, 5) > 0.3

    def run(total):
        def alone(x, y, m):
            # With a batch axis, which a map as the heads take it has.
            return total(power, x[None], y[None], m[None], None)

        return {
            "vmap": lambda: torch.func.vmap(alone)(prediction, target, mask),
            "per_sample": lambda: torch.func.vmap(torch.func.grad(alone, (0, 1)))(
                prediction, target, mask
            ),
            "jacrev": lambda: torch.func.jacrev(alone)(prediction[0], target[0], mask[0]),
            "hessian": lambda: torch.func.hessian(alone)(prediction[0], target[0], mask[0]),
            "jvp": lambda: torch.func.jvp(
                lambda x: alone(x, target[0], mask[0]), (prediction[0],), (prediction[1],)
            ),
        }[transform]()

    torch.testing.assert_close(run(summed_error), run(plain))


@pytest.mark.parametrize("power", POWERS)
def test_the_order_of_the_axes_in_memory_changes_nothing(power):
    prediction, target = torch.randn(2, 3, 2, 4, 5)
    mask = torch.rand(3, 1, 4, 5) > 0.3
    results = []
    for layout in (torch.contiguous_format, torch.channels_last):
        inputs = [x.clone(memory_format=layout).requires_grad_() for x in (prediction, target)]
        total = summed_error(power, *inputs, mask, (0, 2, 3))
        gradients = torch.autograd.grad(total.sum(), inputs)
        assert gradients[0].stride() == inputs[0].stride()
        results.append((total, *gradients))
    torch.testing.assert_close(*results)
