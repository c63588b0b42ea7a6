"""What a training step has measured, for the log."""

from typing import NamedTuple

import torch

from examples.cityscapes.model.network import Output
from examples.cityscapes.training.losses import (
    ByTask,
    errors_of_step,
    learned_sigmas,
    noise_of_step,
)
from examples.cityscapes.training.state import TrainingState
from uncertainty_mtl import MultiTaskLoss, UncertaintyWeightedLoss
from uncertainty_mtl.forms import BaseLoss


class Measured(NamedTuple):
    """What is logged of a part of a batch, by task."""

    errors: dict[str, BaseLoss]
    noise: dict[str, BaseLoss]
    """The sigmas of the pixels, for tasks whose noise the network predicts."""
    nll: ByTask


@torch.no_grad()
def measure_part(
    loss_fn: UncertaintyWeightedLoss,
    losses: MultiTaskLoss,
    predictions: dict[str, Output],
    targets: ByTask,
    masks: ByTask,
) -> Measured:
    """Return a part's errors and noise, over all processes, and its negative log-likelihoods."""
    return Measured(
        errors_of_step(losses, predictions, targets, masks),
        noise_of_step(loss_fn, predictions, masks),
        {task: value.detach() for task, value in losses.tasks.items()},
    )


@torch.no_grad()
def measurements(state: TrainingState, parts: list[Measured]) -> dict[str, ByTask]:
    """Return what is logged of a step, by quantity and task."""
    errors = added([part.errors for part in parts])
    # The mean of no pixel is nan, for which the log has no number.
    noise = {
        task: torch.where(sigma.num_valid > 0, sigma.mean(), torch.nan)
        for task, sigma in added([part.noise for part in parts]).items()
    }
    gradients = [p.grad.norm() for p in state.model.parameters() if p.grad is not None]
    return {
        "loss": {task: error.mean() for task, error in errors.items()},
        "num_labelled": {task: error.num_valid for task, error in errors.items()},
        "nll": {task: torch.stack([part.nll[task] for part in parts]).mean() for task in errors},
        "sigma": learned_sigmas(state.loss_fn) | noise,
        "weight": state.loss_fn.weights() | {t: 2**0.5 / sigma for t, sigma in noise.items()},
        "gradient_norm": {"network": torch.stack(gradients).norm()},
    }


def added(parts: list[dict[str, BaseLoss]]) -> dict[str, BaseLoss]:
    """Return the sums over the parts of a batch, by task."""
    return {
        task: BaseLoss(
            torch.stack([part[task].summed for part in parts]).sum(0),
            torch.stack([part[task].num_valid for part in parts]).sum(0),
        )
        for task in parts[0]
    }
