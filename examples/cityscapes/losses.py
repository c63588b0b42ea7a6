"""The plain error of each task, and the ways of weighing them against each other."""

import torch
from torch import Tensor, nn

from examples.cityscapes.config import TrainConfig, fixed_weights, initial_sigma
from examples.cityscapes.labels import IGNORE_INDEX
from examples.cityscapes.model import Output, without_noise
from uncertainty_mtl import (
    HeteroscedasticLaplaceHead,
    LaplaceHead,
    MultiTaskLoss,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
    functional,
)
from uncertainty_mtl.collectives import sum_over_ranks

ByTask = dict[str, Tensor]


def build_loss(config: TrainConfig) -> "UncertaintyWeightedLoss | FixedWeights":
    """Return the loss that `--weighting` asks for; all of them are called alike.

    On several processes every mean runs over the labels of all of them.
    """
    weights = fixed_weights(config.weighting, config.tasks)
    if weights is not None:
        return FixedWeights(weights)
    sigma = initial_sigma(config.sigma_init)
    start = {"init_sigma": 1.0 if sigma is None else sigma}
    heads = {
        "semantic": ScaledSoftmaxHead(ignore_index=IGNORE_INDEX, **start),
        "instance": LaplaceHead(**start),
        "depth": HeteroscedasticLaplaceHead()
        if config.depth_noise == "per-pixel"
        else LaplaceHead(**start),
    }
    return UncertaintyWeightedLoss(
        {task: heads[task] for task in config.tasks},
        estimator=config.estimator,
        momentum=config.closed_form_momentum,
        form=config.form,
        constraint=None if config.constraint == "none" else config.constraint,
        global_counts=True,
    )


def base_losses(
    predictions: dict[str, Output], targets: ByTask, masks: ByTask
) -> dict[str, functional.BaseLoss]:
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
    loss_fn: "UncertaintyWeightedLoss | FixedWeights",
    predictions: dict[str, Output],
    targets: ByTask,
    masks: ByTask,
) -> dict[str, functional.BaseLoss]:
    """Return the plain errors of the step that the loss has just taken, over all processes.

    The loss has measured them; only where noise is predicted has it measured a likelihood.
    """
    means, counts = loss_fn.base_losses(), loss_fn.num_valid()
    errors = {
        # Without labels the mean is nan; a nan of its own has to remain one.
        task: functional.BaseLoss(
            torch.where(counts[task] > 0, mean * counts[task], 0.0), counts[task]
        )
        for task, mean in means.items()
    }
    noisy = {task: output for task, output in predictions.items() if isinstance(output, tuple)}
    return errors | sum_over_ranks(base_losses(noisy, targets, masks))


class FixedWeights(nn.Module):
    """Weighted sum of the paper's losses, with the interface of `UncertaintyWeightedLoss`.

    The paper's instance loss is `|dx| + |dy|` per pixel, twice the mean over components.
    """

    def __init__(self, weights: dict[str, float]) -> None:
        super().__init__()
        self.weight_of_mean = {
            task: 2 * weight if task == "instance" else weight for task, weight in weights.items()
        }
        self._last: dict[str, functional.BaseLoss] = {}

    def forward(self, predictions: ByTask, targets: ByTask, masks: ByTask) -> MultiTaskLoss:
        """Return the total and each task's weighted loss."""
        losses = sum_over_ranks(base_losses(predictions, targets, masks))
        self._last = {
            t: functional.BaseLoss(e.summed.detach(), e.num_valid) for t, e in losses.items()
        }
        tasks = {task: self.weight_of_mean[task] * loss.mean() for task, loss in losses.items()}
        return MultiTaskLoss(torch.stack(list(tasks.values())).sum(), tasks)

    def base_losses(self) -> ByTask:
        """Return the mean errors of the last forward, nan without labels."""
        return {t: torch.where(e.num_valid > 0, e.mean(), torch.nan) for t, e in self._last.items()}

    def num_valid(self) -> ByTask:
        """Return what each mean ran over."""
        return {task: error.num_valid for task, error in self._last.items()}

    def sigmas(self) -> ByTask:
        """Nothing is learned."""
        return {}

    def weights(self) -> ByTask:
        """Return the factors of the mean errors, as the learned loss does."""
        return {task: torch.tensor(weight) for task, weight in self.weight_of_mean.items()}

    def param_groups(self, lr: float | None = None) -> list[dict[str, object]]:
        """Nothing is learned."""
        return []
