"""The figures of predicted maps over a split: what validation, evaluation and report all quote."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from examples.cityscapes.data.dataset import Batch
from examples.cityscapes.evaluation.map_errors import DepthError, InstanceError
from examples.cityscapes.evaluation.semantic_iou import SemanticIoU
from examples.cityscapes.evaluation.two_task_metrics import TwoTaskMetrics
from examples.cityscapes.model.network import without_noise
from examples.cityscapes.protocols import TWO_TASK, Protocol

Figures = dict[str, Any]


class SplitMetrics:
    """Adds up batches, and gives the figures of all of them; None for what has no labels.

    To add a metric, write a class with `sums` and `compute()`, like `DepthError`, and call it in
    the methods below.
    """

    validated = ("semantic_iou_present", "instance_error_px", "depth_error_px")
    """What validation during training looks at."""

    def __init__(self) -> None:
        self._semantic = SemanticIoU()
        self._instance, self._depth = InstanceError(), DepthError()

    def add(self, maps: dict[str, Tensor], batch: Batch) -> None:
        """Add the predicted maps of a batch, and skip tasks without labels in it.

        Args:
            maps: Train ids (B, H, W), offsets (B, 2, H, W) and disparity (B, 1, H, W).
            batch: The images' labels. The iIoU needs labels of instances.
        """
        targets, masks = batch.targets(), batch.masks()
        both = maps.keys() & targets.keys()
        if "semantic" in both:
            self._semantic.add(maps["semantic"], targets["semantic"], batch.instances)
        if "instance" in both:
            self._instance.add(maps["instance"], targets["instance"], masks["instance"])
        if "depth" in both:
            known = batch.disparity_at_1m
            self._depth.add(maps["depth"], targets["depth"], masks["depth"], known)

    def join(self, summed: Callable[[Tensor], Tensor]) -> None:
        """Replace the sums of this process by those over all processes."""
        for metric in (self._semantic, self._instance, self._depth):
            metric.sums = summed(metric.sums)

    def compute(self) -> Figures:
        """Return the figures by name."""
        return {**self._semantic.compute(), **self._instance.compute(), **self._depth.compute()}


def metrics_of(protocol: Protocol) -> SplitMetrics | TwoTaskMetrics:
    """Return the metrics of a protocol, to which nothing has been added yet."""
    return TwoTaskMetrics() if protocol is TWO_TASK else SplitMetrics()


@torch.no_grad()
def predict_maps(model: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """Return what `SplitMetrics.add` takes: the network's maps of images on its device."""
    maps = without_noise(model(image))
    if "semantic" in maps:
        maps["semantic"] = maps["semantic"].argmax(dim=1)
    return maps
