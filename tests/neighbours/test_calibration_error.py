"""The calibration error against TorchMetrics."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.classification import multiclass_calibration_error

from tests.strategies import classification_batches
from uncertainty_mtl.calibration import expected_calibration_error


@given(batch=classification_batches(torch.float32), bins=st.integers(1, 20))
def test_the_error_is_that_of_torchmetrics(batch, bins):
    probability = batch.prediction.softmax(1)
    found = expected_calibration_error(probability, batch.target, bins=bins)
    expected = multiclass_calibration_error(
        probability, batch.target, num_classes=probability.shape[1], n_bins=bins
    )
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)
