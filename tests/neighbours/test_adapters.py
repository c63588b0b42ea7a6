"""Adapters freeze every parameter of a model, those of a loss inside of it included."""

import pytest
import torch
from torch import nn

from uncertainty_mtl import UncertaintyWeightedLoss


class Adapted(nn.Module):
    """Somebody's frozen model, as libraries of adapters make it: only the adapter learns."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        self.adapter = nn.Linear(4, 4)

    def forward(self, x, targets):
        """Return the losses of the adapted input."""
        return self.model(x + self.adapter(x), targets)


class ModelWithLoss(nn.Module):
    """A linear layer and the loss of its two outputs."""

    def __init__(self, estimator="learned"):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        heads = {"depth": "laplace", "normals": "gaussian"}
        self.loss_fn = UncertaintyWeightedLoss(heads, estimator=estimator)

    def forward(self, x, targets):
        """Return the losses."""
        predictions = dict(zip(("depth", "normals"), self.linear(x).unbind(1), strict=True))
        return self.loss_fn(predictions, targets)


def optimizer_of(parameters):
    return torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.0)


def batch():
    return torch.randn(16, 4), {"depth": 10 * torch.randn(16), "normals": torch.randn(16)}


def sigmas_after_a_step(module, optimizer):
    before = module.model.loss_fn.sigmas()["depth"].item()
    x, targets = batch()
    module(x, {task: 2 * target for task, target in targets.items()}).total.backward()
    optimizer.step()
    return before, module.model.loss_fn.sigmas()["depth"].item()


@pytest.mark.parametrize("which", ["trainable", "all"])
def test_check_optimizer_finds_sigmas_that_other_code_has_frozen(which):
    module = Adapted(ModelWithLoss())
    parameters = [p for p in module.parameters() if p.requires_grad or which == "all"]
    with pytest.raises(ValueError, match=r"\['depth', 'normals'\] without `requires_grad`"):
        module.model.loss_fn.check_optimizer(optimizer_of(parameters))


def test_what_the_error_advises_lets_the_sigmas_learn():
    module = Adapted(ModelWithLoss())
    loss_fn = module.model.loss_fn
    module(*batch())  # the start from data does not need a gradient
    optimizer = optimizer_of(module.parameters())
    before, after = sigmas_after_a_step(module, optimizer)
    assert after == before
    loss_fn.requires_grad_(True)
    loss_fn.check_optimizer(optimizer)
    before, after = sigmas_after_a_step(module, optimizer)
    assert after != before


def test_check_optimizer_accepts_sigmas_that_the_user_has_frozen():
    module = Adapted(ModelWithLoss())
    module.model.loss_fn.freeze()
    module.model.loss_fn.check_optimizer(optimizer_of(module.adapter.parameters()))


def test_sigmas_in_closed_form_follow_although_their_parameters_are_frozen():
    module = Adapted(ModelWithLoss("closed_form"))
    module(*batch())
    optimizer = optimizer_of(module.adapter.parameters())
    module.model.loss_fn.check_optimizer(optimizer)
    before, after = sigmas_after_a_step(module, optimizer)
    assert after != before
