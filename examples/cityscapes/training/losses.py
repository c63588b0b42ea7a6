"""The plain error of each task, and the ways of weighing them against each other."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.labels import IGNORE_INDEX
from examples.cityscapes.model.network import Output, without_noise
from examples.cityscapes.settings import fixed_weights, initial_sigma
from uncertainty_mtl import (
    HeteroscedasticLaplaceHead,
    LaplaceHead,
    MultiTaskLoss,
    ScaledSoftmaxHead,
    TaskHead,
    UncertaintyWeightedLoss,
    functional,
)
from uncertainty_mtl.collectives import sum_over_ranks
from uncertainty_mtl.forms import BaseLoss

ByTask = dict[str, Tensor]


def build_loss(config: TrainConfig) -> UncertaintyWeightedLoss:
    """Return the loss that `--weighting` asks for.

    On several processes every mean runs over the labels of all of them.
    """
    start: dict[str, Any] = {"init_sigma": initial_sigma(config.sigma_init)}
    heads: dict[str, TaskHead] = {
        "semantic": ScaledSoftmaxHead(ignore_index=IGNORE_INDEX, **start),
        "instance": LaplaceHead(**start),
        "depth": HeteroscedasticLaplaceHead()
        if config.depth_noise == "per-pixel"
        else LaplaceHead(**start),
    }
    heads = {task: heads[task] for task in config.tasks}
    weights = fixed_weights(config.weighting, config.tasks)
    if weights is not None:
        # The paper's instance loss is |dx| + |dy| per pixel, twice the mean over components.
        weights = {task: 2 * w if task == "instance" else w for task, w in weights.items()}
        return UncertaintyWeightedLoss(
            heads, estimator="fixed", weights=weights, global_counts=True
        )
    options: dict[str, Any] = {
        "estimator": config.estimator,
        "momentum": config.closed_form_momentum,
        "form": config.form,
        "constraint": None if config.constraint == "none" else config.constraint,
        "temperature": config.temperature,
    }
    return UncertaintyWeightedLoss(heads, **options, global_counts=True)


def draw_weights(loss_fn: UncertaintyWeightedLoss, config: TrainConfig, iteration: int) -> None:
    """Give every task the random weight of this iteration, if `--weighting random` asks for it.

    They are the softmax of draws from the standard normal distribution: random loss weighting of
    Lin et al. (TMLR 2022), a control that any way to weigh should beat. Seed and iteration decide
    the draw, so that all processes and a resumed run have the same.
    """
    if config.weighting == "random":
        rng = np.random.default_rng([config.seed, iteration, _WEIGHTS])
        weights = np.exp(rng.standard_normal(len(config.tasks)))
        weights /= weights.sum()
        loss_fn.priorities.update(zip(config.tasks, weights.tolist(), strict=True))


_WEIGHTS = 1
"""Sets these draws apart from the order of the images, which follows from the seed as well."""


def learned_sigmas(loss_fn: UncertaintyWeightedLoss) -> ByTask:
    """Return the sigmas by task; none where the weights are fixed."""
    return {} if loss_fn.estimator == "fixed" else loss_fn.sigmas()


def base_losses(
    predictions: dict[str, Output], targets: ByTask, masks: ByTask
) -> dict[str, BaseLoss]:
    """Return cross-entropy and mean absolute errors, each over its own labelled pixels.

    An offset counts as two elements, x and y: the instance error is half of the paper's.
    """
    return {
        task: functional.cross_entropy(prediction, targets[task], ignore_index=IGNORE_INDEX)
        if task == "semantic"
        else functional.absolute_error(prediction, targets[task], masks[task])
        for task, prediction in without_noise(predictions).items()
    }


def errors_of_step(
    losses: MultiTaskLoss, predictions: dict[str, Output], targets: ByTask, masks: ByTask
) -> dict[str, BaseLoss]:
    """Return the plain errors of a step, over all processes.

    They are in the result of the loss already, except where the network predicts the noise: there
    the loss has measured a likelihood.
    """
    errors = {
        # Without labels the mean is nan; any other nan has to remain one.
        task: BaseLoss(torch.where(count > 0, losses.errors[task] * count, 0.0), count)
        for task, count in losses.counts.items()
    }
    return errors | over_all_ranks(base_losses(noisy(predictions), targets, masks))


def noise_of_step(
    loss_fn: UncertaintyWeightedLoss,
    predictions: dict[str, Output],
    masks: ByTask,
) -> dict[str, BaseLoss]:
    """Return the predicted sigmas of the labelled pixels, over all processes; see `noisy`."""
    found = {}
    for task, (_, log_var) in noisy(predictions).items():
        head: Any = loss_fn[task]
        sigma = torch.exp(0.5 * log_var.clamp(*head.log_var_bounds()))
        labelled = masks[task].unsqueeze(1)
        summed = torch.where(labelled, sigma, 0.0).sum()
        found[task] = BaseLoss(summed, labelled.sum())
    return over_all_ranks(found)


def noisy(predictions: dict[str, Output]) -> dict[str, Output]:
    """Return the predictions of the tasks whose noise the network predicts for every pixel."""
    return {task: output for task, output in predictions.items() if isinstance(output, tuple)}


def over_all_ranks(errors: dict[str, BaseLoss]) -> dict[str, BaseLoss]:
    """Return the sums over all processes, with one collective for all tasks."""
    if not errors:
        return {}
    summed, num_valid = (torch.stack(parts) for parts in zip(*errors.values(), strict=True))
    joint = sum_over_ranks(BaseLoss(summed, num_valid))
    parts = zip(joint.summed, joint.num_valid, strict=True)
    return {task: BaseLoss(*part) for task, part in zip(errors, parts, strict=True)}
