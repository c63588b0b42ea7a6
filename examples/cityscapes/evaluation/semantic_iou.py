"""Intersection over union of classes and categories, by the rules of the official evaluation."""

from typing import Any

import torch
from torch import Tensor

from examples.cityscapes.evaluation.confusion import (
    by_name,
    confusion_matrix,
    intersection_over_union,
    mean_of_known,
)
from examples.cityscapes.labels import (
    CATEGORY_NAMES,
    CATEGORY_OF,
    CLASS_NAMES,
    IGNORE_INDEX,
    NUM_CLASSES,
    THING_TRAIN_IDS,
)

MEAN_AREA = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Mean area of an instance in pixels of 2048x1024, as the official evaluation has it."""

_ORIGINAL_AREA = 2048 * 1024

_CATEGORY = torch.from_numpy(CATEGORY_OF)
_MEMBERSHIP = torch.nn.functional.one_hot(_CATEGORY, len(CATEGORY_NAMES)).double()  # (19, 7)


class SemanticIoU:
    """Intersection over union from one confusion matrix over the whole split.

    The instance-level iIoU, `iTP / (iTP + FP + iFN)`, weighs every pixel of an instance by the mean
    area of its class over its own, so that a far car counts as much as a near one. False positives
    belong to no instance and have no weight.

    Args:
        pixel_area: How many pixels of 2048x1024 one pixel of the maps stands for, as the mean areas
            are in those. None: as many as the size of the maps says. The official evaluation takes
            1 for maps of every size.
    """

    def __init__(self, pixel_area: float | None = None) -> None:
        self._pixel_area = pixel_area
        self.sums = torch.zeros(NUM_CLASSES + 4, NUM_CLASSES, dtype=torch.float64)
        """The confusion matrix with the truth in rows; then, by class, the weighted pixels of
        instances: all, those predicted in the right class, and those in the right category; and a
        last row, which is above 0 if instances were known."""

    def add(self, predicted: Tensor, target: Tensor, instances: Tensor | None = None) -> None:
        """Add class maps of equal shape; pixels whose target is 255 never count.

        Args:
            predicted: Train ids, (B, H, W).
            target: Train ids, of the same shape.
            instances: Numbers that tell the instances of one image apart, 0 where there is none;
                without them there is no iIoU.
        """
        predicted, target = predicted.cpu(), target.cpu()
        self.sums[:NUM_CLASSES] += confusion_matrix(predicted, target, NUM_CLASSES)
        if instances is not None:
            self.sums[-1] += 1
            # One image at a time: the same number in the next one is another instance.
            for maps in zip(predicted, target, instances.cpu(), strict=True):
                self._add_instances(*maps)

    def _add_instances(self, predicted: Tensor, target: Tensor, instances: Tensor) -> None:
        pixel_area = self._pixel_area or _ORIGINAL_AREA / target.numel()
        inside = (instances > 0) & (target != IGNORE_INDEX)
        keys = instances[inside].long() * NUM_CLASSES + target[inside].long()
        found, member = torch.unique(keys, return_inverse=True)
        pairs = member * NUM_CLASSES + predicted[inside].long()
        counts = torch.bincount(pairs, minlength=len(found) * NUM_CLASSES).view(-1, NUM_CLASSES)
        for row, train_id in zip(counts.double(), (found % NUM_CLASSES).tolist(), strict=True):
            if train_id not in THING_TRAIN_IDS:
                continue
            area = row.sum()
            related = row[_CATEGORY[train_id] == _CATEGORY].sum()
            weight = MEAN_AREA[CLASS_NAMES[train_id]] / (pixel_area * area)
            counted = weight * torch.stack([area, row[train_id], related])
            self.sums[NUM_CLASSES:-1, train_id] += counted

    def compute(self) -> dict[str, Any]:
        """Return the means and the value of each class; None where there is nothing to measure.

        `semantic_iou` follows the official rule: a class that neither occurs nor is predicted is
        left out, and one that is predicted but never occurs counts as 0. `semantic_iou_present` is
        the mean over the classes that occur in the truth, which are those with pixels in
        `semantic_pixels_per_class`. Categories and iIoU follow the official rule.
        """
        confusion = self.sums[:NUM_CLASSES]
        between = _MEMBERSHIP.T @ confusion @ _MEMBERSHIP
        iou, category_iou = intersection_over_union(confusion), intersection_over_union(between)
        in_all, found, related = self.sums[NUM_CLASSES:-1]
        iiou = self._iiou(found, in_all, confusion)
        category_iiou = self._iiou(related @ _MEMBERSHIP, in_all @ _MEMBERSHIP, between)
        has_no_instances = torch.ones(NUM_CLASSES, dtype=torch.bool)
        has_no_instances[list(THING_TRAIN_IDS)] = False
        iiou[has_no_instances] = torch.nan
        category_iiou[(~has_no_instances).double() @ _MEMBERSHIP == 0] = torch.nan
        return {
            "semantic_iou": mean_of_known(iou),
            "semantic_iou_present": mean_of_known(iou[confusion.sum(1) > 0]),
            "semantic_iou_per_class": by_name(CLASS_NAMES, iou),
            "semantic_pixels_per_class": by_name(CLASS_NAMES, confusion.sum(1).long()),
            "semantic_iiou": mean_of_known(iiou),
            "semantic_iiou_per_class": by_name(CLASS_NAMES, iiou),
            "category_iou": mean_of_known(category_iou),
            "category_iou_per_category": by_name(CATEGORY_NAMES, category_iou),
            "category_iiou": mean_of_known(category_iiou),
            "category_iiou_per_category": by_name(CATEGORY_NAMES, category_iiou),
        }

    def _iiou(self, found: Tensor, in_all: Tensor, confusion: Tensor) -> Tensor:
        if not self.sums[-1].any():
            return torch.full_like(found, torch.nan)
        false_positives = confusion.sum(0) - confusion.diag()
        return found / (in_all + false_positives)  # iTP + iFN is the weight of all
