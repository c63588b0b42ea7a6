"""A model that returns its own dict of losses, weighed as it is."""

import pytest
import torch

from examples.existing_model import LIKELIHOODS, make_model, rectangles, train
from uncertainty_mtl import UncertaintyWeightedLoss


@pytest.fixture(scope="module")
def first_losses():
    torch.manual_seed(0)
    images, targets = next(rectangles(1))
    return make_model()(images, targets)


def test_the_keys_of_the_detector_are_the_tasks(first_losses):
    assert first_losses.keys() == LIKELIHOODS.keys()


def test_the_dict_goes_in_as_it_is_and_its_gradient_reaches_the_detector(first_losses):
    loss_fn = UncertaintyWeightedLoss(LIKELIHOODS)
    total = loss_fn(first_losses).total
    expected = sum(loss_fn.weights()[task] * loss for task, loss in first_losses.items())
    torch.testing.assert_close(total, expected)  # every sigma is 1: no penalty yet
    assert total.requires_grad


def test_training_moves_every_weight_and_starts_each_at_its_optimum(capsys):
    loss_fn = train(steps=2)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("0 ")
    started = UncertaintyWeightedLoss(LIKELIHOODS).weights()
    for task, weight in loss_fn.weights().items():
        assert weight != started[task]
        share = weight * loss_fn.base_losses()[task]
        optimum = {"softmax": 0.5, "laplace": 1.0}[LIKELIHOODS[task]]
        assert 0.3 * optimum < share < 3 * optimum
