"""Checks whether probabilities and noise scales match the data, and fits a temperature."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from uncertainty_mtl._checks import check_between, check_labels, check_mask, check_same_shape
from uncertainty_mtl.classification import ScaledSoftmaxHead


class ReliabilityCurve(NamedTuple):
    """Accuracy against confidence, by bins of confidence of equal width on [0, 1].

    Attributes:
        confidence: Mean probability of the predicted class in each bin; nan in an empty one.
        accuracy: Share of correct predictions in each bin; nan in an empty one.
        num_elements: Number of elements in each bin.
    """

    confidence: Tensor
    accuracy: Tensor
    num_elements: Tensor


def interval_coverage(
    distribution: Distribution, target: Tensor, levels: Tensor, mask: Tensor | None = None
) -> Tensor:
    r"""Return the share of targets inside of the central interval of each level.

    For a calibrated distribution it equals the level: half of the targets are between the 25th and
    the 75th percentile.

    Args:
        distribution: Of a regression, such as ``head.distribution(prediction)``.
        target: Of the same shape.
        levels: Probabilities in (0, 1), shape (L,).
        mask: True where the target is used, or the weight of each; same shape as the target.

    Returns:
        Coverage in [0, 1] by level, shape (L,); nan if nothing is valid.

    Raises:
        ValueError: If the shapes differ, or a level is not in (0, 1).
    """
    check_same_shape(distribution.mean, target, names=("distribution.mean", "target"))
    if not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"`levels` should be in (0, 1). Found {levels.tolist()}.")
    if mask is None:
        mask = torch.ones_like(target, dtype=torch.bool)
    check_mask(mask, target.shape)
    # Where the target falls in its distribution: uniform on [0, 1] if calibrated.
    blank = torch.where(mask != 0, target, distribution.mean)
    from_centre = (2 * distribution.cdf(blank) - 1).abs()
    weights = mask.float() / mask.float().sum()
    return torch.stack([((from_centre <= level) * weights).sum() for level in levels])


def reliability_curve(
    probability: Tensor, target: Tensor, *, bins: int = 15, ignore_index: int = -100
) -> ReliabilityCurve:
    """Return how often predictions of each confidence are right.

    Args:
        probability: Of each class, shape ``(N, C, *)``.
        target: Labels, shape ``(N, *)``.
        bins: Number of bins.
        ignore_index: Label of the elements to leave out.

    Raises:
        TypeError: If the target holds no integers.
        ValueError: If the shapes do not fit.
    """
    check_labels(probability, target)
    check_between("bins", bins, 0)
    valid = target != ignore_index
    confidence, predicted = probability.max(dim=1)
    confidence, correct = confidence[valid].double(), (predicted == target)[valid].double()
    # A confidence of exactly 1 belongs to the last bin.
    index = (confidence * bins).long().clamp(max=bins - 1)
    count = torch.zeros(bins, dtype=torch.double, device=index.device)
    count.index_add_(0, index, torch.ones_like(confidence))
    means = [
        torch.zeros_like(count).index_add_(0, index, value) / count
        for value in (confidence, correct)
    ]
    return ReliabilityCurve(means[0], means[1], count.long())


def expected_calibration_error(
    probability: Tensor, target: Tensor, *, bins: int = 15, ignore_index: int = -100
) -> Tensor:
    r"""Return the mean gap between confidence c and accuracy a over the bins.

    .. math:: \sum_b \tfrac{n_b}{n} |a_b - c_b|

    Arguments as in :func:`reliability_curve`. 0-dim, in [0, 1].

    References:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    curve = reliability_curve(probability, target, bins=bins, ignore_index=ignore_index)
    gaps = (curve.accuracy - curve.confidence).abs().nan_to_num(0.0)
    return (gaps * curve.num_elements).sum() / curve.num_elements.sum()


def fit_temperature(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, *, ignore_index: int = -100
) -> ScaledSoftmaxHead:
    """Return an exact softmax head whose temperature fits held-out logits best.

    ``head.distribution(logits)`` then gives calibrated probabilities, and ``head.sigma ** 2`` the
    temperature.

    Args:
        logits: Held-out logits, shape ``(N, C, *)``: those of the training data are overconfident.
        target: Their labels, shape ``(N, *)``.
        mask: True where the label is used.
        ignore_index: Label of the elements to leave out.

    Raises:
        TypeError, ValueError: As :class:`~uncertainty_mtl.ScaledSoftmaxHead`.
    """
    head = ScaledSoftmaxHead(exact=True, ignore_index=ignore_index)
    head.fit_scale(logits, target, mask)
    return head.eval()
