"""A model that returns its own dict of losses, weighed as it is."""

import ast
import math

import pytest
import torch
from torch import nn

from examples.existing_model import (
    LIKELIHOODS,
    VALIDATION_SEED,
    compare,
    make_model,
    overlap,
    rectangles,
    train,
)
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


def printed_losses_and_weights(line):
    assert line.startswith("0 {")
    return ast.literal_eval(line[2:].replace("} {", "}, {"))


def test_each_learned_weight_starts_at_its_optimum_and_moves_from_there(capsys):
    _, loss_fn = train(steps=2, learned=True)
    (line,) = capsys.readouterr().out.splitlines()
    losses, weights = printed_losses_and_weights(line)
    assert losses.keys() == weights.keys() == LIKELIHOODS.keys()
    for task, likelihood in LIKELIHOODS.items():
        start = {"softmax": 0.5, "sigmoid": 0.5, "laplace": 1.0}[likelihood] / float(losses[task])
        # Adam has taken a step of 1e-2 in log sigma^2, and the loss is printed with four digits.
        rounding = 0.00005 / float(losses[task])
        assert float(weights[task]) == pytest.approx(start, rel=0.011 + rounding, abs=0.05)
        assert loss_fn.weights()[task].item() != float(weights[task])


def test_the_plain_sum_has_weights_of_one_and_the_same_first_losses(capsys):
    train(steps=1, learned=False)
    train(steps=1, learned=True)
    by_sum, by_weights = map(printed_losses_and_weights, capsys.readouterr().out.splitlines())
    assert set(by_sum[1].values()) == {"1.0"}
    assert by_sum[0] == by_weights[0]


class Knows(nn.Module):
    """A detector that finds a box shifted by a share of its width, or nothing in some images."""

    def __init__(self, shift, every=1):
        super().__init__()
        self.shift, self.every = shift, every

    def forward(self, images):
        """Return the boxes of the bright pixels, shifted."""
        found = []
        for i, image in enumerate(images):
            rows, columns = torch.where(image[0] > 0.5)
            left, right = columns.min(), columns.max() + 1
            shift = self.shift * (right - left)
            box = [left + shift, rows.min(), right + shift, rows.max() + 1]
            boxes = torch.tensor([box] if i % self.every == 0 else []).view(-1, 4)
            found.append({"boxes": boxes})
        return found


@pytest.mark.parametrize(
    ("detector", "expected"),
    [(Knows(0), 1.0), (Knows(0.5), 1 / 3), (Knows(0, every=2), 0.5)],
    ids=["exact", "shifted by half a width", "half of the images without a box"],
)
def test_the_overlap_is_that_of_boxes_whose_overlap_is_known(detector, expected):
    assert overlap(detector, num_batches=2) == pytest.approx(expected)


def test_images_of_validation_are_no_images_of_training():
    (trained, _), (new, _) = next(rectangles(1)), next(rectangles(1, VALIDATION_SEED))
    assert not any(torch.equal(a, b) for a, b in zip(trained, new, strict=True))


def test_the_comparison_names_both_ways_to_weigh(capsys):
    overlaps = compare(steps=1)
    assert list(overlaps) == ["plain sum", "learned weights"]
    assert all(0 <= value <= 1 for value in overlaps.values())
    assert capsys.readouterr().out.splitlines()[::2] == ["plain sum", "learned weights"]
