"""The heads for regression: Gaussian and Laplace."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from uncertainty_mtl import functional
from uncertainty_mtl._checks import check_floating
from uncertainty_mtl.forms import BaseLoss
from uncertainty_mtl.functional import Noise
from uncertainty_mtl.task_head import TaskHead


class RegressionHead(TaskHead, ABC):
    """Base class of the two heads for regression; see :class:`~uncertainty_mtl.GaussianHead`."""

    def __init__(
        self,
        *,
        init_sigma: float | None = None,
        sigma_bounds: tuple[float, float] = (1e-6, 1e6),
        full: bool = False,
        num_channels: int | None = None,
        ignore_nan: bool = False,
    ) -> None:
        super().__init__(
            form=self.noise().form,
            init_sigma=init_sigma,
            sigma_bounds=sigma_bounds,
            num_channels=num_channels,
            constant=self.noise().constant if full else 0.0,
        )
        self.ignore_nan = ignore_nan

    @abstractmethod
    def noise(self) -> Noise:
        """Return the family of distributions around the prediction."""

    def base_loss(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the sum of the errors, and the number of valid elements."""
        return functional.summed_error(
            self.noise().error, prediction, target, mask, self.num_channels or 1, self.ignore_nan
        )

    def distribution(self, prediction: Tensor) -> Distribution:
        """Return the distribution around ``prediction`` whose standard deviation is sigma."""
        check_floating("prediction", prediction)
        sigma = torch.exp(0.5 * self.bounded_log_var())
        return self.noise().around(prediction, self._per_channel(sigma, prediction.ndim))

    def settings(self) -> dict[str, Any]:
        """Return the settings that are printed, with their defaults."""
        return super().settings() | {"ignore_nan": False}


class GaussianHead(RegressionHead):
    r"""Learns how noisy a regression task is, and weighs its squared error accordingly.

    Assumes Gaussian noise and returns the mean negative log-likelihood per valid element, without
    its constant :math:`\tfrac12 \log 2\pi` unless ``full``:

    .. math:: \mathcal{L} = \tfrac12 e^{-s}\, \overline{(f - y)^2} + \tfrac12 s,
              \qquad s = \log \sigma^2.

    :math:`\sigma` is the standard deviation of the noise, in the units of the target. The weight of
    the mean squared error is :math:`1/(2\sigma^2)`; for fixed predictions the optimum is
    :math:`\sigma^2 = \text{MSE}`. The loss may be negative, because a density may exceed 1.

    Args:
        init_sigma: Where :math:`\sigma` starts, in the units of the target; ``None`` takes it from
            the first batch.
        sigma_bounds: The interval that :math:`\sigma` is kept in; see
            :class:`~uncertainty_mtl.TaskHead`.
        full: Whether to add the constant.
        num_channels: ``None`` for one sigma for all elements, or C for one per channel.
        ignore_nan: Whether to leave out elements whose target is nan.

    Shape:
        - ``prediction``: :math:`(*)`, any number of axes; :math:`(N, C, *)` with ``num_channels``.
        - ``target``: same as ``prediction``, never broadcast; floating.
        - ``mask``: same as ``prediction``, or that shape without its channel axis (axis 1). Bool:
          True where the target is used. Floating: the weight of each element, for a weighted mean
          (divided by the sum of the weights). Elements left out by False or 0 may be nan.
        - output: scalar; exactly 0 if no element is valid. float32, or float64 for float64.

    The mean runs over elements and components alike, so a map of two-component vectors has one
    :math:`\tfrac12 s` for each component.

    Raises:
        TypeError: If prediction or target is not floating, or the mask is neither bool nor
            floating.
        ValueError: If the shapes differ, or an argument is out of its range.

    Example:
        >>> head = GaussianHead()
        >>> head(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0])).item()
        0.25

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses*, CVPR
        2018, equations 5 and 7.
    """

    def noise(self) -> Noise:
        """Return ``functional.GAUSSIAN_NOISE``."""
        return functional.GAUSSIAN_NOISE


class LaplaceHead(RegressionHead):
    r"""Learns how noisy a regression task is, and weighs its absolute error accordingly.

    Assumes Laplace noise and returns the mean negative log-likelihood per valid element, without
    its constant :math:`\tfrac12 \log 2` unless ``full``:

    .. math:: \mathcal{L} = \sqrt2\, e^{-s/2}\, \overline{|f - y|} + \tfrac12 s,
              \qquad s = \log \sigma^2.

    :math:`\sigma` is the standard deviation of the noise, in the units of the target, and not the
    scale :math:`b = \sigma/\sqrt2` of the distribution. A Laplace head on Laplace noise thus
    reports the same number as a Gaussian head on Gaussian noise of equal standard deviation. The
    weight of the mean absolute error is :math:`\sqrt2/\sigma = 1/b`; for fixed predictions the
    optimum is :math:`\sigma = \sqrt2\,\text{MAE}`. The loss may be negative, because a density may
    exceed 1.

    Arguments, shapes and errors are those of :class:`~uncertainty_mtl.GaussianHead`.

    Example:
        >>> head = LaplaceHead(init_sigma=2**0.5)  # b = 1
        >>> loss = head(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 2.0]))
        >>> round(loss.item(), 4)  # 0.5 + log(sigma)
        0.8466

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses*, CVPR
        2018. The paper trains with absolute errors but derives the Gaussian form, whose factor is
        :math:`1/(2\sigma^2)`; this head uses the likelihood that belongs to absolute errors.
    """

    def noise(self) -> Noise:
        """Return ``functional.LAPLACE_NOISE``."""
        return functional.LAPLACE_NOISE
