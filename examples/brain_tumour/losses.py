"""The two losses, weighed by learned uncertainty or by hand."""

import torch
from torch import Tensor, nn

from examples.brain_tumour.config import TrainConfig, manual_weights
from uncertainty_mtl import (
    GaussianHead,
    MultiTaskLoss,
    ScaledSoftmaxHead,
    TaskHead,
    UncertaintyWeightedLoss,
)


def build_loss(config: TrainConfig) -> "UncertaintyWeightedLoss | ManualWeights":
    """Return the loss that `--weighting` asks for; both are called alike."""
    class_weight = torch.tensor(config.class_weight)
    heads: dict[str, TaskHead] = {
        "synthesis": GaussianHead(init_sigma=1.0),
        "segmentation": ScaledSoftmaxHead(init_sigma=1.0, class_weight=class_weight),
    }
    weights = manual_weights(config.weighting)
    return UncertaintyWeightedLoss(heads) if weights is None else ManualWeights(heads, weights)


class ManualWeights(nn.Module):
    """Weighted sum of mean squared error and cross-entropy, called as the learned loss is.

    The heads only measure here: their sigmas are frozen and used nowhere.
    """

    def __init__(self, heads: dict[str, TaskHead], weights: dict[str, float]) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(heads).requires_grad_(False)
        self.weight_of_mean = weights

    def forward(
        self,
        predictions: dict[str, Tensor],
        targets: dict[str, Tensor | None],
        masks: dict[str, Tensor],
    ) -> MultiTaskLoss:
        """Return the total, and each task's weighted loss, mean error and number of elements.

        Without labels the loss is 0 and the error nan.
        """
        tasks, errors, counts = {}, {}, {}
        for task, weight in self.weight_of_mean.items():
            prediction, target = predictions[task], targets[task]
            if target is None:
                tasks[task] = counts[task] = prediction.new_zeros(())
                errors[task] = prediction.new_tensor(torch.nan)
            else:
                base = self.heads[task].base_loss(prediction, target, masks[task])
                tasks[task] = weight * base.mean()
                errors[task], counts[task] = base.mean().detach(), base.num_valid
        return MultiTaskLoss(torch.stack(list(tasks.values())).sum(), tasks, errors, counts)

    def sigmas(self) -> dict[str, Tensor]:
        """Nothing is learned."""
        return {}

    def weights(self) -> dict[str, Tensor]:
        """Return the factors of the mean errors, as the learned loss does."""
        return {
            task: torch.tensor(weight, dtype=torch.float64)
            for task, weight in self.weight_of_mean.items()
        }

    def param_groups(self, lr: float | None = None) -> list[dict[str, object]]:
        """Nothing is learned."""
        return []
