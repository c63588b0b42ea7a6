"""A model that returns its own dict of losses, weighed as it is."""

import ast
import math

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
    # Every sigma starts at the optimum: sigma^2 = 2 CE, and sigma = sqrt(2) MAE.
    expected = sum(
        0.5 + 0.5 * math.log(2 * loss.item())
        if LIKELIHOODS[task] != "laplace"
        else 1 + math.log(2**0.5 * loss.item())
        for task, loss in first_losses.items()
    )
    assert total.item() == pytest.approx(expected, rel=1e-4)
    gradients = torch.autograd.grad(total, list(first_losses.values()))
    assert all(gradient > 0 for gradient in gradients)


def test_each_weight_starts_at_its_optimum_and_moves_from_there(capsys):
    loss_fn = train(steps=2)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("0 {")
    losses, weights = ast.literal_eval(line[2:].replace("} {", "}, {"))
    assert losses.keys() == weights.keys() == LIKELIHOODS.keys()
    for task, likelihood in LIKELIHOODS.items():
        start = {"softmax": 0.5, "sigmoid": 0.5, "laplace": 1.0}[likelihood] / float(losses[task])
        # Adam has taken a step of 1e-2 in log sigma^2, and the loss is printed with four digits.
        rounding = 0.00005 / float(losses[task])
        assert float(weights[task]) == pytest.approx(start, rel=0.011 + rounding, abs=0.005)
        assert loss_fn.weights()[task].item() != float(weights[task])
