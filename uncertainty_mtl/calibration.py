"""Checks whether probabilities and noise scales match the data, and fits a temperature."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import Distribution

from uncertainty_mtl._checks import check_count, check_labels, check_mask, check_same_shape
from uncertainty_mtl.classification import ScaledSoftmaxHead


class ReliabilityCurve(NamedTuple):
    """Accuracy against confidence, in bins of confidence of equal width on [0, 1].

    Attributes:
        confidence: Mean probability of the predicted class in each bin; nan in an empty bin.
        accuracy: Share of correct predictions in each bin; nan in an empty bin.
        num_elements: Number of elements in each bin.
    """

    confidence: Tensor
    accuracy: Tensor
    num_elements: Tensor


def interval_coverage(
    distribution: Distribution, target: Tensor, levels: Tensor, mask: Tensor | None = None
) -> Tensor:
    r"""Return how many targets lie in the central interval of each level, to check a noise scale.

    For a calibrated distribution the share equals the level: half of the targets lie between the
    25th and the 75th percentile. A larger share means that sigma is too large.

    Args:
        distribution: What a regression predicts, such as ``head.distribution(prediction)``.
        target: Targets of the same shape.
        levels: Probabilities in (0, 1), shape (L,).
        mask: True where the target is used, or the weight of each; same shape as the target.

    Returns:
        Coverage in [0, 1] by level, shape (L,); nan if nothing is valid.

    Raises:
        ValueError: If the shapes differ, or a level is not in (0, 1).

    Example:
        >>> from torch.distributions import Normal
        >>> noise = Normal(torch.zeros(4), 1.0)
        >>> target = torch.tensor([-2.0, -0.1, 0.2, 1.5])
        >>> interval_coverage(noise, target, torch.tensor([0.5, 0.9])).tolist()
        [0.5, 0.75]
    """
    check_same_shape(distribution.mean, target, names=("distribution.mean", "target"))
    if not ((levels > 0) & (levels < 1)).all():
        raise ValueError(f"`levels` should be in (0, 1). Found {levels.tolist()}.")
    if mask is None:
        mask = torch.ones_like(target, dtype=torch.bool)
    check_mask(mask, target.shape)
    # If the distribution is calibrated, the rank of the target within it is uniform on [0, 1].
    blank = torch.where(mask != 0, target, distribution.mean)
    from_centre = (2 * distribution.cdf(blank) - 1).abs()
    weights = mask.float() / mask.float().sum()
    return torch.stack([((from_centre <= level) * weights).sum() for level in levels])


def reliability_curve(
    probability: Tensor, target: Tensor, *, bins: int = 15, ignore_index: int = -100
) -> ReliabilityCurve:
    """Return how often predictions of each confidence are right.

    Args:
        probability: Probability of each class, shape ``(N, C, *)``.
        target: Labels, shape ``(N, *)``.
        bins: Number of bins.
        ignore_index: Label of the elements to leave out.

    Raises:
        TypeError: If the target does not hold integers.
        ValueError: If the shapes do not fit.

    Example:
        >>> probability = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]])
        >>> curve = reliability_curve(probability, torch.tensor([0, 1, 1]), bins=2)
        >>> curve.num_elements.tolist(), round(curve.accuracy[1].item(), 3)
        ([0, 3], 0.667)
    """
    check_labels(probability, target)
    check_count("bins", bins)
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
    r"""Return how far confidence and accuracy are apart on average (ECE), 0-dim, in [0, 1].

    With confidence c and accuracy a of each bin,

    .. math:: \text{ECE} = \sum_b \tfrac{n_b}{n} |a_b - c_b|.

    Arguments and errors are those of :func:`reliability_curve`.

    Example:
        >>> probability = torch.tensor([[0.9, 0.1], [0.7, 0.3]])
        >>> gap = expected_calibration_error(probability, torch.tensor([0, 1]))
        >>> round(gap.item(), 4)  # (|1 - 0.9| + |0 - 0.7|) / 2
        0.4

    References:
        Guo et al., *On Calibration of Modern Neural Networks*, ICML 2017.
    """
    curve = reliability_curve(probability, target, bins=bins, ignore_index=ignore_index)
    gaps = (curve.accuracy - curve.confidence).abs().nan_to_num(0.0)
    return (gaps * curve.num_elements).sum() / curve.num_elements.sum()


def fit_temperature(
    logits: Tensor, target: Tensor, mask: Tensor | None = None, *, ignore_index: int = -100
) -> ScaledSoftmaxHead:
    """Return a head that turns the logits of a trained model into calibrated probabilities.

    It is an exact softmax head whose temperature fits held-out logits best.
    ``head.distribution(logits)`` gives the probabilities, and ``head.sigma ** 2`` the temperature.

    Args:
        logits: Held-out logits, shape ``(N, C, *)``. Those of the training data are overconfident.
        target: Their labels, shape ``(N, *)``.
        mask: True where the label is used.
        ignore_index: Label of the elements to leave out.

    Raises:
        TypeError, ValueError: As :class:`~uncertainty_mtl.ScaledSoftmaxHead`.

    Example:
        >>> logits = torch.tensor([[4.0, 0.0]]).expand(4, 2)  # 98% sure of class 0
        >>> head = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
        >>> head.distribution(logits).probs[0].round(decimals=2).tolist()
        [0.75, 0.25]
    """
    head = ScaledSoftmaxHead(exact=True, ignore_index=ignore_index)
    head.fit_scale(logits, target, mask)
    return head.eval()
