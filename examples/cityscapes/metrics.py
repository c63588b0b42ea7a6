"""The figures of merit of each task, accumulated over a split."""

import torch
from torch import Tensor
from torchmetrics.classification import MulticlassConfusionMatrix

from examples.cityscapes.labels import CLASS_NAMES, IGNORE_INDEX, NUM_CLASSES

Figures = dict[str, float | None]


class SemanticIoU:
    """Intersection over union from one confusion matrix over the whole split."""

    def __init__(self) -> None:
        self._confusion = MulticlassConfusionMatrix(NUM_CLASSES, ignore_index=IGNORE_INDEX)

    def add(self, predicted: Tensor, target: Tensor) -> None:
        """Add class maps of equal shape; pixels whose target is 255 never count."""
        self._confusion.update(predicted.cpu(), target.cpu())

    def compute(self) -> dict[str, object]:
        """Return the means and the value of each class; None where there is nothing to measure.

        `semantic_iou` is the official rule: a class with neither truth nor prediction drops out,
        one that is predicted but never true counts 0. `semantic_iou_present` is the mean over the
        classes that occur in the truth.
        """
        confusion = self._confusion.confmat.double()
        hits, truth, predicted = confusion.diag(), confusion.sum(1), confusion.sum(0)
        union = truth + predicted - hits
        iou = hits / union.clamp(min=1)
        per_class = {
            name: float(iou[k]) if union[k] > 0 else None for k, name in enumerate(CLASS_NAMES)
        }
        return {
            "semantic_iou": _mean_where(iou, union > 0),
            "semantic_iou_present": _mean_where(iou, truth > 0),
            "semantic_iou_per_class": per_class,
        }


class InstanceError:
    """Error of the predicted offsets over instance pixels."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, predicted: Tensor, target: Tensor, mask: Tensor) -> None:
        """Add offsets (B, 2, H, W) and the mask (B, H, W) of instance pixels."""
        per_pixel = (predicted - target).abs().sum(dim=1)
        self._sum += float(per_pixel[mask].double().sum())
        self._count += int(mask.sum())

    def compute(self) -> Figures:
        """Return the mean of `|dx| + |dy|` in pixels."""
        return {"instance_error_px": self._sum / self._count if self._count else None}


class DepthError:
    """Error of the predicted disparity over valid pixels."""

    def __init__(self) -> None:
        self._sum, self._squares, self._count = 0.0, 0.0, 0

    def add(self, predicted: Tensor, target: Tensor, mask: Tensor) -> None:
        """Add disparities (B, 1, H, W) and the mask (B, H, W) of valid pixels."""
        error = (predicted - target).squeeze(1)[mask].double()
        self._sum += float(error.abs().sum())
        self._squares += float(error.square().sum())
        self._count += int(mask.sum())

    def compute(self) -> Figures:
        """Return the mean absolute and the root mean squared error in pixels."""
        if not self._count:
            return {"depth_error_px": None, "depth_rms_px": None}
        return {
            "depth_error_px": self._sum / self._count,
            "depth_rms_px": (self._squares / self._count) ** 0.5,
        }


def _mean_where(values: Tensor, selected: Tensor) -> float | None:
    return float(values[selected].mean()) if torch.any(selected) else None
