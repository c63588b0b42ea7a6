"""The figures of the two-task protocol: those that papers since MTAN print."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from examples.cityscapes.data.dataset import Batch
from examples.cityscapes.evaluation.confusion import (
    by_name,
    confusion_matrix,
    intersection_over_union,
    mean_of_known,
)
from examples.cityscapes.protocols import TWO_TASK

NUM_CLASSES = len(TWO_TASK.class_names)


class TwoTaskMetrics:
    """Adds up batches, and gives the figures of all of them; None for what has no labels.

    Every pixel of the split counts alike. The public code of the papers averages the depth errors
    of each batch, and then those means over batches, which gives nearly the same.
    """

    validated = ("semantic_iou", "depth_abs_error")
    """What validation during training looks at."""

    def __init__(self) -> None:
        self.confusion = torch.zeros(NUM_CLASSES, NUM_CLASSES, dtype=torch.float64)
        """Pixels by true class, in rows, and predicted class."""
        self.depth = torch.zeros(3, dtype=torch.float64)
        """Over valid pixels, the sums of the error, of the error over the truth, and of 1."""

    def add(self, maps: dict[str, Tensor], batch: Batch) -> None:
        """Add the predicted maps of a batch, and skip tasks without labels in it.

        Args:
            maps: Classes (B, H, W) and inverse depth (B, 1, H, W).
            batch: The images' labels.
        """
        targets, masks = batch.targets(), batch.masks()
        both = maps.keys() & targets.keys()
        if "semantic" in both:
            classes, truth = maps["semantic"].cpu(), targets["semantic"].cpu()
            self.confusion += confusion_matrix(classes, truth, NUM_CLASSES)
        if "depth" in both:
            mask = masks["depth"]
            truth = targets["depth"].squeeze(1)[mask].double()
            errors = (maps["depth"].squeeze(1)[mask].double() - truth).abs()
            sums = torch.stack([errors.sum(), (errors / truth).sum(), mask.sum()])
            self.depth += sums.cpu()

    def join(self, summed: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums of this process by those over all processes."""
        self.confusion, self.depth = summed(self.confusion), summed(self.depth)

    def compute(self) -> dict[str, Any]:
        """Return the figures by name; those of classes are fractions.

        `semantic_iou` is the mean over the classes that are true or predicted anywhere.
        """
        iou = intersection_over_union(self.confusion)
        num_pixels, num_valid = self.confusion.sum(), self.depth[-1]
        accuracy = self.confusion.diag().sum() / num_pixels
        error, relative = (self.depth[:-1] / num_valid).tolist()
        return {
            "semantic_iou": mean_of_known(iou),
            "semantic_iou_per_class": by_name(TWO_TASK.class_names, iou),
            "semantic_pixel_accuracy": float(accuracy) if num_pixels else None,
            "depth_abs_error": error if num_valid else None,
            "depth_rel_error": relative if num_valid else None,
        }
