"""Weight averaging by `torch.optim.swa_utils` of a model that holds the loss."""

import math

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from uncertainty_mtl import UncertaintyWeightedLoss

TASKS = ("depth", "normals")


class ModelWithLoss(nn.Module):
    """A linear layer and the loss of its two outputs."""

    def __init__(self, **options):
        super().__init__()
        self.model = nn.Linear(4, 2)
        self.loss_fn = UncertaintyWeightedLoss(
            {"depth": "laplace", "normals": "gaussian"}, **options
        )

    def forward(self, x, targets):
        """Return the losses."""
        predictions = dict(zip(TASKS, self.model(x).unbind(1), strict=True))
        return self.loss_fn(predictions, targets)


def batch():
    x = torch.randn(32, 4)
    return x, {"depth": 100 * torch.randn(32), "normals": 0.1 * torch.randn(32)}


def trained_and_averaged(steps=20, estimator="learned", **options):
    """Return the model, its average, and what each sigma was after every step."""
    model = ModelWithLoss(estimator=estimator)
    groups = [{"params": model.model.parameters()}, *model.loss_fn.param_groups(lr=0.05)]
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    averaged = AveragedModel(model, **options)
    log_vars = []
    for _ in range(steps):
        model(*batch()).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        averaged.update_parameters(model)
        log_vars.append([2 * math.log(model.loss_fn.sigmas()[task].item()) for task in TASKS])
    return model, averaged, log_vars


def log_vars_of(module):
    return [2 * math.log(module.loss_fn.sigmas()[task].item()) for task in TASKS]


@pytest.mark.parametrize("use_buffers", [False, True])
def test_the_average_has_the_mean_of_the_log_variances(use_buffers):
    _, averaged, log_vars = trained_and_averaged(use_buffers=use_buffers)
    expected = torch.tensor(log_vars).mean(0).tolist()
    assert log_vars_of(averaged.module) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_a_moving_average_begins_with_the_sigmas_of_the_first_step(use_buffers):
    options = {"multi_avg_fn": get_ema_multi_avg_fn(0.9), "use_buffers": use_buffers}
    _, averaged, log_vars = trained_and_averaged(**options)
    expected = torch.tensor(log_vars[0])
    for each in log_vars[1:]:
        expected = 0.9 * expected + 0.1 * torch.tensor(each)
    assert log_vars_of(averaged.module) == pytest.approx(expected.tolist(), abs=1e-3)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_averaging_leaves_the_model_itself_alone(estimator, use_buffers):
    torch.manual_seed(0)
    model, _, _ = trained_and_averaged(estimator=estimator, use_buffers=use_buffers)
    torch.manual_seed(0)
    plain = ModelWithLoss(estimator=estimator)
    groups = [{"params": plain.model.parameters()}, *plain.loss_fn.param_groups(lr=0.05)]
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    for _ in range(20):
        plain(*batch()).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.testing.assert_close(model.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_the_average_evaluates_with_its_own_sigmas(estimator, use_buffers):
    _, averaged, log_vars = trained_and_averaged(estimator=estimator, use_buffers=use_buffers)
    averaged.eval()
    before = {name: value.clone() for name, value in averaged.state_dict().items()}
    losses = averaged(*batch())
    assert losses.total.isfinite()
    torch.testing.assert_close(averaged.state_dict(), before, rtol=0, atol=0)
    sigmas = averaged.module.loss_fn.sigmas()
    # All of the steps had much the same noise.
    assert sigmas["depth"].item() == pytest.approx(math.exp(log_vars[-1][0] / 2), rel=0.3)
    nll = math.sqrt(2) * losses.errors["depth"] / sigmas["depth"] + sigmas["depth"].log()
    torch.testing.assert_close(losses.tasks["depth"].detach(), nll)


@pytest.mark.parametrize("use_buffers", [False, True])
def test_training_that_goes_on_from_the_average_does_not_start_again(use_buffers):
    _, averaged, _ = trained_and_averaged(use_buffers=use_buffers)
    other = ModelWithLoss()
    other.load_state_dict(averaged.module.state_dict())
    before = log_vars_of(other)
    x, targets = batch()
    other.train()(x, {task: 1000 * target for task, target in targets.items()})
    assert log_vars_of(other) == pytest.approx(before, abs=1e-5)
