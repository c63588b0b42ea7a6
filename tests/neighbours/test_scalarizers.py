"""The page "Which loss weighting is which" against TorchJD's own code of the same methods."""

import pytest
import torch
from torchjd import scalarization

from uncertainty_mtl import UncertaintyWeightedLoss

TASKS = ("depth", "normals", "label")


def base_losses():
    """Return parameters, and three losses of different sizes that depend on them."""
    theta = torch.linspace(-1, 2, 6, requires_grad=True)
    losses = [20 * (theta - 1).abs().mean(), theta.square().mean(), 0.1 * theta.exp().mean()]
    return theta, torch.stack(losses)


def uw_o_gradient():
    theta, losses = base_losses()
    likelihoods = dict.fromkeys(TASKS, "softmax")
    loss_fn = UncertaintyWeightedLoss(
        likelihoods, form="symmetric", estimator="closed_form", momentum=1
    )
    return torch.autograd.grad(loss_fn(losses).total, theta)[0]


def test_the_geometric_mean_has_the_gradient_of_uw_o_times_itself_over_k():
    theta, losses = base_losses()
    mean = scalarization.GeometricMean()(losses)
    (gradient,) = torch.autograd.grad(mean, theta)
    torch.testing.assert_close(gradient, uw_o_gradient() * mean.item() / len(TASKS))


def test_famo_before_its_first_update_is_uw_o_with_weights_that_sum_to_one():
    if not hasattr(scalarization, "FAMO"):
        pytest.skip("this TorchJD has no FAMO")
    theta, losses = base_losses()
    (gradient,) = torch.autograd.grad(scalarization.FAMO(len(TASKS))(losses), theta)
    scale = 1 / (1 / losses.detach()).sum()
    torch.testing.assert_close(gradient, uw_o_gradient() * scale, rtol=1e-4, atol=1e-6)


def test_imtl_l_is_the_symmetric_form_with_the_learned_number_negated():
    theta, losses = base_losses()
    imtl = scalarization.IMTLL(len(TASKS))
    numbers = torch.tensor([-2.0, 0.3, 1.5])
    (parameter,) = imtl.parameters()
    with torch.no_grad():
        parameter.copy_(numbers)
    loss_fn = UncertaintyWeightedLoss(dict.fromkeys(TASKS, "laplace"), form="symmetric")
    state = {
        f"heads.{task}.log_var": -number.view(1)
        for task, number in zip(TASKS, numbers, strict=True)
    }
    loss_fn.load_state_dict(state, strict=False)
    ours, theirs = loss_fn(losses).total, imtl(losses)
    torch.testing.assert_close(ours, theirs)
    (expected,) = torch.autograd.grad(theirs, theta, retain_graph=True)
    torch.testing.assert_close(torch.autograd.grad(ours, theta)[0], expected)
