"""A quick look at the validation split during training, to tell the best checkpoint."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from examples.cityscapes.data.dataset import Batch
from examples.cityscapes.labels import NUM_CLASSES
from examples.cityscapes.model.network import without_noise
from examples.cityscapes.training.distributed import Ranks

Figures = dict[str, float | None]


@torch.no_grad()
def validate(model: nn.Module, shares: Iterable[Batch], ranks: Ranks) -> Figures:
    """Return the figures of the whole split, of which each process sees its share.

    `semantic_iou_present` is the mean IoU over the classes that occur in the truth, and
    `instance_error_px` and `depth_error_px` are those of the `evaluate` command;
    `selection_error` is what the best checkpoint has the least of.
    """
    ranks.share(model.buffers())  # the running statistics of batch norm
    model.eval()
    confusion = torch.zeros(NUM_CLASSES * NUM_CLASSES, dtype=torch.float64)
    errors = {task: torch.zeros(2, dtype=torch.float64) for task in ("instance", "depth")}
    for batch in shares:
        for task, prediction in without_noise(model(batch.image)).items():
            mask = batch.masks[task]
            if task == "semantic":
                pairs = batch.targets[task] * NUM_CLASSES + prediction.argmax(dim=1)
                confusion += torch.bincount(pairs[mask], minlength=NUM_CLASSES**2).cpu()
            else:
                error = (prediction - batch.targets[task]).abs().sum(dim=1)[mask].double()
                errors[task] += torch.stack([error.sum(), mask.sum()]).cpu()
    summed = ranks.sum(torch.cat([confusion, *errors.values()]))
    confusion, instance, depth = summed.split([NUM_CLASSES**2, 2, 2])
    figures = {
        "semantic_iou_present": mean_iou(confusion.view(NUM_CLASSES, NUM_CLASSES)),
        "instance_error_px": mean_error(*instance.tolist()),
        "depth_error_px": mean_error(*depth.tolist()),
    }
    return {**figures, "selection_error": selection_error(**figures)}


def mean_iou(confusion: Tensor) -> float | None:
    """Return the mean over the classes of the truth, the rows of a confusion matrix."""
    hits, truth, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
    present = truth > 0
    if not present.any():
        return None
    return float((hits / (truth + predicted - hits))[present].mean())


def mean_error(summed: float, count: float) -> float | None:
    """Return the mean, or None where nothing is labelled."""
    return summed / count if count else None


def selection_error(
    semantic_iou_present: float | None,
    instance_error_px: float | None,
    depth_error_px: float | None,
) -> float | None:
    """Return the geometric mean of `1 - IoU` and the two errors, of the tasks that have one.

    Which of two networks has the lower one does not depend on the units of any task; that a tenth
    is gained counts the same in each.
    """
    missed = None if semantic_iou_present is None else 1 - semantic_iou_present
    errors = [e for e in (missed, instance_error_px, depth_error_px) if e is not None]
    if not errors:
        return None
    logs = [math.log(max(error, 1e-12)) for error in errors]
    return math.exp(sum(logs) / len(logs))
