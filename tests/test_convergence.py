"""Where weights end up in whole trainings: at c / L, from the first step on."""

import pytest
import torch

from tests.scene import HEADS, KINDS, C, leaf, noisy, train
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [1e-3, 1.0, 1e3])
def test_constant_losses_have_their_weight_in_the_first_step(estimator, kind, level):
    loss_fn = UncertaintyWeightedLoss({"a": kind}, estimator=estimator)
    loss = leaf(level)
    loss_fn({"a": loss}).total.backward()
    assert loss.grad.item() == pytest.approx(C[kind] / level, rel=1e-5)
    assert loss_fn.weights()["a"].item() == pytest.approx(C[kind] / level, rel=1e-5)


def test_constant_losses_keep_their_weight():
    levels = torch.tensor([1e-3, 1.0, 1e3]).repeat(3)
    kinds = [kind for kind in KINDS for _ in range(3)]
    loss_fn = UncertaintyWeightedLoss({f"{i}": kind for i, kind in enumerate(kinds)})
    weights = train(loss_fn, levels.expand(300, 9), record=300)
    # Adam makes a whole step, 1%, of a gradient that is 0 but for rounding, and takes it back.
    expected = torch.tensor([C[kind] for kind in kinds]) / levels
    torch.testing.assert_close(weights, expected.expand(300, 9), rtol=0.011, atol=0)


def test_noisy_losses_have_their_weight_after_200_steps():
    # Tasks do not influence each other: 20 of them are 20 seeds.
    cases = [(kind, level) for kind in KINDS for level in (1e-3, 1e3)]
    levels = torch.tensor([level for _, level in cases for _ in range(20)])
    kinds = [kind for kind, _ in cases for _ in range(20)]
    loss_fn = UncertaintyWeightedLoss({f"{i}": kind for i, kind in enumerate(kinds)})
    (weights,) = train(loss_fn, noisy(levels, 200))
    ratios = weights * levels / torch.tensor([C[kind] for kind in kinds])
    medians = (ratios - 1).abs().view(len(cases), 20).median(dim=1).values
    assert (medians < 0.1).all(), dict(zip(cases, medians.tolist(), strict=True))


def test_the_start_removes_the_inertia():
    # Adam at 1e-2 needs hundreds of steps from s = 0 to a loss of 1e-3, and none after this.
    def steps_to_within_5_percent(head: GaussianHead) -> int:
        loss_fn = UncertaintyWeightedLoss({"a": head})
        optimizer = torch.optim.Adam(loss_fn.param_groups())
        for step in range(2000):
            loss = leaf(1e-3)
            losses = loss_fn({"a": loss})
            optimizer.zero_grad()
            losses.total.backward()
            if loss.grad.item() * 1e-3 == pytest.approx(0.5, rel=0.05):
                return step
            optimizer.step()
        return 2000

    assert steps_to_within_5_percent(GaussianHead(init_sigma=1.0)) > 500
    assert steps_to_within_5_percent(GaussianHead()) == 0


def test_a_jump_of_a_loss_is_followed():
    loss_fn = UncertaintyWeightedLoss({kind: HEADS[kind]() for kind in KINDS})
    optimizer = torch.optim.Adam(loss_fn.param_groups())
    for level in (1.0, 2.0):
        for _ in range(800):
            optimizer.zero_grad()
            loss_fn([leaf(level) for _ in KINDS]).total.backward()
            optimizer.step()
        for kind, weight in loss_fn.weights().items():
            assert weight.item() * level == pytest.approx(C[kind], rel=0.01)
