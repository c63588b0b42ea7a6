"""No head takes more memory than its gradient needs; the bytes are the allocator's."""

import math

import pytest
import torch

from benchmarks.memory import peak_multiple
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, _chunks, _errors

SHAPE = (8, 8, 128, 256)
REGRESSION = [LaplaceHead, GaussianHead]
PART = 3 * _errors.CPU_PART / math.prod(SHAPE)
"""Of a part of the map there are the residual, its bits or sign, and the mask as numbers.

The last 0.001 in what is asserted are scalars.
"""


@pytest.mark.parametrize("num_channels", [None, SHAPE[1]])
@pytest.mark.parametrize("head_cls", REGRESSION)
def test_a_masked_regression_needs_the_gradient_and_a_part_of_the_map(head_cls, num_channels):
    head = head_cls(num_channels=num_channels)
    prediction, target = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    mask = target > 0
    assert peak_multiple(lambda p: head(p, target, mask), prediction) <= 1.001 + PART < 1.2


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_an_unmasked_regression_needs_no_more(head_cls):
    head = head_cls()
    prediction, target = torch.randn(SHAPE, requires_grad=True), torch.randn(SHAPE)
    assert peak_multiple(lambda p: head(p, target), prediction) <= 1.001 + PART


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("exact", [False, True], ids=["paper", "exact"])
def test_a_softmax_needs_the_gradient_and_a_part_of_the_map(exact, layout):
    head = ScaledSoftmaxHead(ignore_index=255, exact=exact)
    logits = torch.randn(4, 19, 256, 512).contiguous(memory_format=layout).requires_grad_()
    target = torch.randint(19, (4, 256, 512))
    target = target.where(torch.rand(target.shape) > 0.1, 255)
    # Of one part at a time: logits, logarithms of probabilities, and the gradients of both.
    part = min(_chunks.CPU_CHUNK * torch.get_num_threads() / logits.numel(), 1 / 11)
    assert peak_multiple(lambda p: head(p, target), logits) <= 1 + 4.5 * part < 1.5
