"""The shared Hypothesis strategies: batches, masks and scales as users have them."""

from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

seeds = st.integers(0, 2**32 - 1)

log_vars = st.floats(-4, 4).map(lambda s: torch.tensor([s], dtype=torch.float64))
"""One log-variance, float64, shape (1,): sigma from 0.14 to 7.4."""

shapes = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)
"""(N, C) to (N, C, H, W)."""


class Batch(NamedTuple):
    """One task's prediction, target and mask."""

    prediction: Tensor
    target: Tensor
    mask: Tensor


@st.composite
def regression_batches(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> Batch:
    """Draw a regression task whose residuals are at least 0.1, as |x| has a kink at 0."""
    shape, generator = draw(shapes), torch.Generator().manual_seed(draw(seeds))
    prediction = torch.randn(shape, generator=generator, dtype=dtype)
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    residual = sign * (0.1 + torch.rand(shape, generator=generator, dtype=dtype))
    return Batch(prediction, prediction + residual, _mask(shape, generator))


@st.composite
def classification_batches(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> Batch:
    """Draw logits of 2 to 6 classes, and their labels."""
    num_classes, shape = draw(st.integers(2, 6)), draw(shapes)
    generator = torch.Generator().manual_seed(draw(seeds))
    logits = torch.randn(
        (shape[0], num_classes, *shape[1:]), generator=generator, dtype=dtype
    ) * draw(st.sampled_from([0.5, 3.0]))
    target = torch.randint(num_classes, shape, generator=generator)
    return Batch(logits, target, _mask(shape, generator))


@st.composite
def binary_batches(draw: st.DrawFn, dtype: torch.dtype = torch.float64) -> Batch:
    """Draw a multi-label task: logits, and a target from 0 to 1 for each of them."""
    shape, generator = draw(shapes), torch.Generator().manual_seed(draw(seeds))
    logits = 3 * torch.randn(shape, generator=generator, dtype=dtype)
    target = torch.rand(shape, generator=generator, dtype=dtype)
    if draw(st.booleans()):
        target = target.round()
    return Batch(logits, target, _mask(shape, generator))


def _mask(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    mask = torch.rand(shape, generator=generator) < 0.6
    mask.view(-1)[0] = True  # An empty mask has tests of its own.
    return mask


losses = st.floats(0.01, 100)
"""A reduced base loss."""
