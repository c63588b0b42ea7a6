"""Coverage, reliability and temperature, on data whose calibration is known."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical, Laplace, Normal

from tests.strategies import classification_batches
from uncertainty_mtl import GaussianHead, LaplaceHead
from uncertainty_mtl.calibration import (
    expected_calibration_error,
    fit_temperature,
    interval_coverage,
    reliability_curve,
)

LEVELS = torch.tensor([0.1, 0.5, 0.9])


@pytest.mark.parametrize("head_cls", [GaussianHead, LaplaceHead])
def test_a_true_distribution_covers_what_it_says(head_cls):
    head, prediction = head_cls(init_sigma=3.0), torch.randn(50_000)
    distribution = head.distribution(prediction)
    covered = interval_coverage(distribution, distribution.sample(), LEVELS)
    torch.testing.assert_close(covered, LEVELS, atol=0.01, rtol=0)


@given(factor=st.floats(0.2, 5))
def test_coverage_of_a_wrong_sigma_is_that_of_the_error_function(factor):
    target = Normal(0.0, 1.0).icdf((torch.arange(4000) + 0.5) / 4000)
    covered = interval_coverage(Normal(torch.zeros(4000), factor), target, torch.tensor([0.5]))
    expected = math.erf(factor * Normal(0.0, 1.0).icdf(torch.tensor(0.75)).item() / math.sqrt(2))
    assert covered.item() == pytest.approx(expected, abs=2e-3)


def test_coverage_leaves_out_what_is_masked():
    distribution = Laplace(torch.zeros(4), 1.0)
    target = torch.tensor([0.0, 0.0, math.nan, 100.0])
    mask = torch.tensor([True, True, False, False])
    assert interval_coverage(distribution, target, LEVELS, mask).tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match=r"`levels` should be in \(0, 1\)"):
        interval_coverage(distribution, target, torch.tensor([1.0]))


@given(counts=st.lists(st.integers(0, 4), min_size=6, max_size=6).filter(any), seed=st.integers(0))
def test_an_integer_weight_counts_a_target_as_often_as_it_says(counts, seed):
    generator = torch.Generator().manual_seed(seed % 2**31)
    mean, target = torch.randn(2, 6, generator=generator)
    repeats = torch.tensor(counts)
    expected = interval_coverage(
        Normal(mean.repeat_interleave(repeats), 1.0), target.repeat_interleave(repeats), LEVELS
    )
    found = interval_coverage(Normal(mean, 1.0), target, LEVELS, repeats.float())
    torch.testing.assert_close(found, expected)


@given(batch=classification_batches(), bins=st.integers(1, 20))
def test_the_error_is_the_mean_gap_between_confidence_and_accuracy(batch, bins):
    probability = batch.prediction.softmax(1)
    # Element by element, with plain numbers.
    gap_of_bin: dict[int, float] = {}
    rows = probability.movedim(1, -1).flatten(0, -2).tolist()
    labels = batch.target.flatten().tolist()
    for row, label in zip(rows, labels, strict=True):
        confidence = max(row)
        index = min(int(confidence * bins), bins - 1)
        is_right = row.index(confidence) == label
        gap_of_bin[index] = gap_of_bin.get(index, 0.0) + is_right - confidence
    expected = sum(abs(gap) for gap in gap_of_bin.values()) / len(rows)
    found = expected_calibration_error(probability, batch.target, bins=bins)
    assert found.item() == pytest.approx(expected, abs=1e-9)


def test_the_curve_counts_by_bin_and_ignores():
    probability = torch.tensor([[0.95, 0.05], [0.9, 0.1], [0.4, 0.6], [1.0, 0.0]])
    curve = reliability_curve(probability, torch.tensor([0, 1, 1, 255]), bins=2, ignore_index=255)
    assert curve.num_elements.tolist() == [0, 3]
    assert curve.accuracy[1].item() == pytest.approx(2 / 3)
    assert curve.confidence[1].item() == pytest.approx((0.95 + 0.9 + 0.6) / 3)
    assert curve.accuracy[0].isnan()


def test_a_temperature_repairs_overconfident_logits():
    logits = 4 * torch.randn(20_000, 4)
    target = Categorical(logits=logits / 3).sample()
    target[:100] = 255
    head = fit_temperature(logits, target, ignore_index=255)
    assert head.sigma.item() ** 2 == pytest.approx(3, rel=0.05)
    before = expected_calibration_error(logits.softmax(1), target, ignore_index=255)
    repaired = (logits / 3).softmax(1)
    torch.testing.assert_close(head.distribution(logits).probs, repaired, rtol=0, atol=0.02)
    after = expected_calibration_error(head.distribution(logits).probs, target, ignore_index=255)
    assert after < 0.02 < 0.1 < before


def test_a_temperature_is_fitted_to_the_elements_that_the_mask_leaves():
    logits = 4 * torch.randn(20_000, 4)
    target = Categorical(logits=logits / 3).sample()
    mask = torch.arange(20_000) % 2 == 0
    target[~mask] = 99
    assert fit_temperature(logits, target, mask).sigma.item() ** 2 == pytest.approx(3, rel=0.05)
    # Without a label there is nothing to fit.
    assert fit_temperature(logits, target, torch.zeros_like(mask)).sigma.item() == 1
