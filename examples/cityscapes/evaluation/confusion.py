"""The basis of all class figures: a confusion matrix, and means over the known values."""

from torch import Tensor

from examples.cityscapes.labels import IGNORE_INDEX


def confusion_matrix(predicted: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Count pixels by true class, in rows, and predicted class; ignored ones never count."""
    # Imported here: a command that measures nothing should not wait three seconds for it.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    return multiclass_confusion_matrix(predicted, target, num_classes, ignore_index=IGNORE_INDEX)


def intersection_over_union(confusion: Tensor) -> Tensor:
    """Return the IoU of every class, nan for one that is neither true nor predicted anywhere."""
    hits = confusion.diag()
    return hits / (confusion.sum(0) + confusion.sum(1) - hits)


def mean_of_known(values: Tensor) -> float | None:
    """Return the mean of the values that are not nan, or None without any."""
    mean = float(values.nanmean())
    return None if mean != mean else mean


def by_name(names: tuple[str, ...], values: Tensor) -> dict[str, float | None]:
    """Return the values by name, with None in the place of nan."""
    return {
        name: None if value != value else value
        for name, value in zip(names, values.tolist(), strict=True)
    }
