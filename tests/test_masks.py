"""Errors over the elements that a mask leaves, against PyTorch's own losses of those elements."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from tests.likelihoods import gaussian_nll, laplace_nll, scaled_softmax_nll
from tests.strategies import classification_batches, log_vars, regression_batches, seeds
from uncertainty_mtl.functional import (
    absolute_error,
    cross_entropy,
    squared_error,
)

errors = pytest.mark.parametrize(
    ("error", "reference"),
    [(squared_error, F.mse_loss), (absolute_error, F.l1_loss)],
    ids=["squared", "absolute"],
)
likelihoods = pytest.mark.parametrize("nll", [gaussian_nll, laplace_nll])
rubbish = st.sampled_from([math.nan, math.inf, -math.inf])
"""What a target may hold where nobody measured it, and a prediction where nobody looks."""


def spoiled(tensor: Tensor, mask: Tensor, value: float) -> Tensor:
    """Return the tensor with an unusable value wherever the mask is False."""
    if mask.ndim < tensor.ndim:
        mask = mask.unsqueeze(1)
    return torch.where(mask, tensor, value)


@errors
@given(batch=regression_batches(), in_target=rubbish, in_prediction=rubbish)
def test_what_is_masked_reaches_neither_the_error_nor_its_gradient(
    error, reference, batch, in_target, in_prediction
):
    prediction = spoiled(batch.prediction, batch.mask, in_prediction).requires_grad_()
    target = spoiled(batch.target, batch.mask, in_target).requires_grad_()
    found = error(prediction, target, batch.mask)

    # The reference sees the valid elements only, and no rubbish.
    clean = [x.detach().clone().requires_grad_() for x in (batch.prediction, batch.target)]
    expected = reference(clean[0][batch.mask], clean[1][batch.mask], reduction="sum")
    torch.testing.assert_close(found.summed, expected)
    assert found.num_valid.item() == batch.mask.sum().item()
    torch.testing.assert_close(
        torch.autograd.grad(found.summed, (prediction, target)),
        torch.autograd.grad(expected, clean),
    )


@errors
@given(batch=regression_batches(), value=rubbish)
def test_each_channel_has_an_error_and_a_count_of_its_own(error, reference, batch, value):
    num_channels = batch.prediction.shape[1]
    target = spoiled(batch.target, batch.mask, value)
    found = error(batch.prediction, target, batch.mask, num_channels=num_channels)
    by_channel = [
        [tensor[:, channel][batch.mask[:, channel]] for tensor in batch[:2]]
        for channel in range(num_channels)
    ]
    expected = torch.stack([reference(*pair, reduction="sum") for pair in by_channel])
    torch.testing.assert_close(found.summed.reshape(-1), expected)
    assert found.num_valid.reshape(-1).tolist() == [len(pair[0]) for pair in by_channel]


@errors
@pytest.mark.parametrize("num_channels", [1, 3])
@given(seed=seeds, value=rubbish)
def test_a_mask_without_the_channel_axis_holds_for_all_channels(
    error, reference, num_channels, seed, value
):
    generator = torch.Generator().manual_seed(seed)
    prediction, target = torch.randn(2, 2, 3, 4, 5, generator=generator).double()
    mask = torch.rand(2, 4, 5, generator=generator) < 0.5
    found = error(prediction, spoiled(target, mask, value), mask, num_channels=num_channels)
    valid = [x.movedim(1, -1)[mask] for x in (prediction, target)]  # (elements, channels)
    expected = reference(*valid, reduction="none").sum(0)
    expected = expected if num_channels == 3 else expected.sum()
    torch.testing.assert_close(found.summed, expected)
    assert found.num_valid.flatten().tolist() == [mask.sum().item() * 3 / num_channels] * (
        num_channels
    )


@errors
@given(batch=regression_batches())
def test_without_a_mask_every_element_counts(error, reference, batch):
    found = error(batch.prediction, batch.target)
    assert found.num_valid.item() == batch.target.numel()
    torch.testing.assert_close(found.mean(), reference(batch.prediction, batch.target))


@errors
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(error, reference, dtype):
    # A mean over 60,000 elements, in the dtype itself, would be off in the second or third digit.
    prediction = torch.randn(2, 1, 150, 200).to(dtype).requires_grad_()
    target, mask = 3 * torch.randn(2, 1, 150, 200), torch.rand(2, 1, 150, 200) < 0.7
    found = error(prediction, spoiled(target, mask, math.nan), mask)
    expected = reference(prediction.detach().double()[mask], target.double()[mask])
    assert found.summed.dtype == found.num_valid.dtype == torch.float32
    assert found.mean().item() == pytest.approx(expected.item(), rel=1e-5)
    found.mean().backward()
    assert prediction.grad.dtype == dtype
    assert not prediction.grad[~mask].any()


@likelihoods
@given(batch=regression_batches(), s=log_vars, value=rubbish)
def test_gradients_beside_rubbish_match_finite_differences(nll, batch, s, value):
    # Twice: a gradient penalty differentiates them again.
    prediction = spoiled(batch.prediction, batch.mask, value).requires_grad_()
    target = spoiled(batch.target, batch.mask, value)
    inputs = (prediction, target, s.requires_grad_(), batch.mask)
    assert gradcheck(nll, inputs)
    assert gradgradcheck(nll, inputs)


@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
@given(batch=classification_batches(), s=log_vars, label=st.sampled_from([-7, 99, 2**40]))
def test_a_masked_label_may_be_anything(exact, batch, s, label):
    logits = batch.prediction.requires_grad_()
    target = torch.where(batch.mask, batch.target, label)
    found = scaled_softmax_nll(logits, target, s, batch.mask, exact=exact)

    valid = logits.movedim(1, -1)[batch.mask], batch.target[batch.mask]
    expected = (
        F.cross_entropy(valid[0] / s.exp(), valid[1])
        if exact
        else F.cross_entropy(*valid) / s.exp() + s / 2
    ).squeeze()
    torch.testing.assert_close(found, expected)
    (gradient,), (reference,) = (torch.autograd.grad(x, logits) for x in (found, expected))
    torch.testing.assert_close(gradient, reference)
    assert not gradient.movedim(1, -1)[~batch.mask].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_cross_entropy_of_half_precision_is_summed_in_float32(dtype):
    logits = torch.randn(2, 5, 100, 150).to(dtype).requires_grad_()
    target, mask = torch.randint(5, (2, 100, 150)), torch.rand(2, 100, 150) < 0.7
    found = cross_entropy(logits, target, mask)
    valid = logits.detach().double().movedim(1, -1)[mask]
    assert found.summed.dtype == torch.float32
    expected = F.cross_entropy(valid, target[mask]).item()
    assert found.mean().item() == pytest.approx(expected, rel=1e-5)
    found.mean().backward()
    assert logits.grad.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_labels_of_any_integer_dtype_are_those_of_int64(dtype):
    # The loader of an image file gives uint8, with 255 where there is no label.
    logits, target = torch.randn(2, 4, 3, 3), torch.randint(4, (2, 3, 3))
    target[0, 0] = 255 if dtype == torch.uint8 else -100
    expected = F.cross_entropy(logits, target, ignore_index=target[0, 0, 0].item())
    found = cross_entropy(logits, target.to(dtype), ignore_index=target[0, 0, 0].item())
    torch.testing.assert_close(found.mean(), expected)


def test_a_label_out_of_range_is_named():
    logits, target = torch.zeros(2, 4, 3), torch.tensor([[0, 1, 7], [255, 2, 2]])
    with pytest.raises(ValueError, match=r"from 0 to 3.*255.*Found labels from 0 to 7"):
        cross_entropy(logits, target, ignore_index=255)
    with pytest.raises(ValueError, match="Found labels from -1 to 2"):
        cross_entropy(logits, torch.tensor([[0, -1, 2], [1, 1, 1]]))
    # A masked one is not looked at.
    found = cross_entropy(logits, target, target < 4)
    assert found.mean().item() == pytest.approx(math.log(4))
    assert found.num_valid.item() == 4
