"""No head takes more memory than its gradient needs; the bytes are the allocator's."""

import pytest
import torch

from benchmarks.memory import peak_multiple
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead

SHAPE = (4, 8, 64, 128)
REGRESSION = [LaplaceHead, GaussianHead]


@pytest.mark.parametrize("num_channels", [None, SHAPE[1]])
@pytest.mark.parametrize("head_cls", REGRESSION)
def test_a_masked_regression_needs_the_gradient_and_a_mask(head_cls, num_channels):
    head = head_cls(num_channels=num_channels)
    prediction, target = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    mask = target > 0
    # The gradient is one map of four bytes an element, the inverse of the mask a byte.
    assert peak_multiple(lambda p: head(p, target, mask), prediction) <= 1.3


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_an_unmasked_regression_needs_the_gradient_alone(head_cls):
    head = head_cls()
    prediction, target = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    assert peak_multiple(lambda p: head(p, target), prediction) <= 1.05


def test_the_papers_softmax_needs_what_cross_entropy_does():
    head = ScaledSoftmaxHead(ignore_index=255)
    prediction, target = logits_and_labels()
    plain = peak_multiple(
        lambda p: torch.nn.functional.cross_entropy(p, target, ignore_index=255), prediction
    )
    assert peak_multiple(lambda p: head(p, target), prediction) <= 1.05 * plain


def test_the_exact_softmax_needs_the_gradient_and_a_part_of_the_map():
    head = ScaledSoftmaxHead(ignore_index=255, exact=True)
    prediction, target = logits_and_labels()
    assert peak_multiple(lambda p: head(p, target), prediction) <= 1.3


def logits_and_labels():
    logits = torch.randn(8, 19, 128, 128, requires_grad=True)
    target = torch.randint(19, (8, 128, 128))
    return logits, target.where(torch.rand(target.shape) > 0.1, 255)
