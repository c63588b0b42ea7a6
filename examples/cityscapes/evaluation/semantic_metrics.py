"""Intersection over union of classes and categories, by the rules of the official evaluation."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from examples.cityscapes.labels import (
    CATEGORY_NAMES,
    CATEGORY_OF,
    CLASS_NAMES,
    IGNORE_INDEX,
    NUM_CLASSES,
    THING_TRAIN_IDS,
    TRAIN_CLASSES,
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

_CATEGORY = torch.from_numpy(CATEGORY_OF)
_MEMBERSHIP = torch.nn.functional.one_hot(_CATEGORY, len(CATEGORY_NAMES)).double()  # (19, 7)
_THING_BY_LABEL_ID = {TRAIN_CLASSES[k].id: k for k in THING_TRAIN_IDS}


class SemanticIoU:
    """Intersection over union from one confusion matrix over the whole split.

    The instance-level iIoU, `iTP / (iTP + FP + iFN)`, weighs every pixel of an instance by the mean
    area of its class over its own, so that a far car counts as much as a near one. False positives
    belong to no instance and have no weight.

    Args:
        pixel_area: How many pixels of the original image one pixel of the maps stands for, as the
            mean areas are in pixels of the original.
    """

    def __init__(self, pixel_area: float = 1.0) -> None:
        self._confusion = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_INDEX)
        self._pixel_area = pixel_area
        # By class of the instance: weighted pixels, in all, found, and found in its category.
        self._weighted = torch.zeros(3, NUM_CLASSES, dtype=torch.float64)
        self._saw_instances = False

    def add(self, predicted: Tensor, target: Tensor, instance_ids: Tensor | None = None) -> None:
        """Add class maps of equal shape; pixels whose target is 255 never count.

        Args:
            predicted: Train ids.
            target: Train ids, of the same shape.
            instance_ids: `label id * 1000 + number` on single instances and less elsewhere,
                (B, H, W) like the others; without it there is no iIoU.
        """
        predicted, target = predicted.cpu(), target.cpu()
        self._confusion.update(predicted, target)
        if instance_ids is not None:
            self._saw_instances = True
            # One image at a time: the same id in the next one is another instance.
            for classes, ids in zip(predicted, instance_ids.cpu(), strict=True):
                self._add_instances(classes, ids)

    def _add_instances(self, predicted: Tensor, instance_ids: Tensor) -> None:
        inside = instance_ids >= 1000
        ids, member = torch.unique(instance_ids[inside], return_inverse=True)
        pairs = member * NUM_CLASSES + predicted[inside].long()
        counts = torch.bincount(pairs, minlength=len(ids) * NUM_CLASSES).view(-1, NUM_CLASSES)
        for row, instance_id in zip(counts.double(), ids.tolist(), strict=True):
            train_id = _THING_BY_LABEL_ID.get(instance_id // 1000)
            if train_id is None:  # a caravan or a trailer
                continue
            area = row.sum()
            related = row[_CATEGORY[train_id] == _CATEGORY].sum()
            weight = MEAN_AREA[CLASS_NAMES[train_id]] / (self._pixel_area * area)
            self._weighted[:, train_id] += weight * torch.stack([area, row[train_id], related])

    def compute(self) -> dict[str, Any]:
        """Return the means and the value of each class; None where there is nothing to measure.

        `semantic_iou` is the official rule: a class with neither truth nor prediction drops out,
        one that is predicted but never true counts 0. `semantic_iou_present` is the mean over the
        classes that occur in the truth. Categories and iIoU follow the official rule.
        """
        confusion = self._confusion.confmat.double()
        between = _MEMBERSHIP.T @ confusion @ _MEMBERSHIP
        iou, category_iou = _iou(confusion), _iou(between)
        in_all, found, related = self._weighted
        iiou = self._iiou(found, in_all, confusion)
        category_iiou = self._iiou(related @ _MEMBERSHIP, in_all @ _MEMBERSHIP, between)
        has_no_instances = torch.ones(NUM_CLASSES, dtype=torch.bool)
        has_no_instances[list(THING_TRAIN_IDS)] = False
        iiou[has_no_instances] = torch.nan
        category_iiou[(~has_no_instances).double() @ _MEMBERSHIP == 0] = torch.nan
        return {
            "semantic_iou": _mean(iou),
            "semantic_iou_present": _mean(iou[confusion.sum(1) > 0]),
            "semantic_iou_per_class": _by_name(CLASS_NAMES, iou),
            "semantic_iiou": _mean(iiou),
            "semantic_iiou_per_class": _by_name(CLASS_NAMES, iiou),
            "category_iou": _mean(category_iou),
            "category_iou_per_category": _by_name(CATEGORY_NAMES, category_iou),
            "category_iiou": _mean(category_iiou),
            "category_iiou_per_category": _by_name(CATEGORY_NAMES, category_iiou),
        }

    def _iiou(self, found: Tensor, in_all: Tensor, confusion: Tensor) -> Tensor:
        if not self._saw_instances:
            return torch.full_like(found, torch.nan)
        false_positives = confusion.sum(0) - confusion.diag()
        return found / (in_all + false_positives)  # iTP + iFN is the weight of all


def _iou(confusion: Tensor) -> Tensor:
    hits = confusion.diag()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)  # 0 / 0 is nan: nothing to measure


def _mean(values: Tensor) -> float | None:
    mean = float(values.nanmean())
    return None if mean != mean else mean


def _by_name(names: tuple[str, ...], values: Tensor) -> dict[str, float | None]:
    return {
        name: None if value != value else value
        for name, value in zip(names, values.tolist(), strict=True)
    }
