"""A quick look at the validation split during training, to tell the best checkpoint."""

import math
from collections.abc import Iterable

from torch import nn

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import Batch
from examples.cityscapes.evaluation.metrics import Figures, metrics_of, predict_maps
from examples.cityscapes.protocols import THREE_TASK, Protocol
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.state import Progress


def validate(
    model: nn.Module, shares: Iterable[Batch], ranks: Ranks, protocol: Protocol = THREE_TASK
) -> Figures:
    """Return some figures of the whole split, of which each process sees its share.

    They are among those of the `evaluate` command: for three tasks `semantic_iou_present`, the mean
    IoU over the classes that occur in the truth, `instance_error_px` and `depth_error_px`, and for
    two tasks `semantic_iou` and `depth_abs_error`. The best checkpoint is the one with the lowest
    `selection_error`.
    """
    ranks.share(model.buffers())  # the running statistics of batch norm
    model.eval()
    metrics = metrics_of(protocol)
    for batch in shares:
        metrics.add(predict_maps(model, batch.image), batch)
    metrics.join(ranks.sum)
    measured = metrics.compute()
    figures = {name: measured[name] for name in metrics.validated}
    return {**figures, "selection_error": selection_error(*figures.values())}


def is_due(progress: Progress, config: TrainConfig) -> bool:
    """Whether the validation split is to be looked at before training goes on."""
    if not config.eval_every or progress.validated == progress.iteration:
        return False
    is_last = progress.iteration == config.iterations
    return is_last or progress.iteration % config.eval_every == 0


def selection_error(iou: float | None, *errors_of_tasks: float | None) -> float | None:
    """Return the geometric mean of `1 - IoU` and the errors, of the tasks that have one.

    Which of two networks has the lower value does not depend on the units of any task, and an
    improvement by a tenth counts the same in every task.
    """
    missed = None if iou is None else 1 - iou
    errors = [error for error in (missed, *errors_of_tasks) if error is not None]
    if not errors:
        return None
    logs = [math.log(max(error, 1e-12)) for error in errors]
    return math.exp(sum(logs) / len(logs))
