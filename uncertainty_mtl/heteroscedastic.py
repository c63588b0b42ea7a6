"""Heads whose noise depends on the data: the network predicts a scale for every element."""

from abc import ABC, abstractmethod
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution

from uncertainty_mtl import functional
from uncertainty_mtl._checks import check_between, check_count, check_floating, check_pair
from uncertainty_mtl.forms import BaseLoss
from uncertainty_mtl.functional import Noise
from uncertainty_mtl.task_head import TaskHead

Pair: TypeAlias = tuple[Tensor, Tensor]


class NoiseHead(TaskHead, ABC):
    """Base class of the heads with data-dependent noise, whose sigma the network predicts.

    The head has no sigma of its own: ``sigma`` is nan, and ``weight`` is 1, because the likelihood
    itself weighs every element.
    """

    def __init__(self, sigma_bounds: tuple[float, float]) -> None:
        super().__init__(form=None, sigma_bounds=sigma_bounds)

    def _split(self, prediction: Any) -> Pair:
        mean, log_var = check_pair(prediction)
        check_floating("prediction[1]", log_var)
        return mean, log_var.clamp(*self.log_var_bounds())


class NoisyRegressionHead(NoiseHead, ABC):
    """Base class of the two heads for regressions whose network predicts the noise.

    See :class:`~uncertainty_mtl.HeteroscedasticGaussianHead`.
    """

    def __init__(
        self,
        *,
        sigma_bounds: tuple[float, float] = (1e-6, 1e6),
        full: bool = False,
        ignore_nan: bool = False,
        beta: float = 0.0,
        faithful: bool = False,
    ) -> None:
        super().__init__(sigma_bounds)
        check_between("beta", beta, 0, 1, may_be_low=True)
        if beta and faithful:
            raise ValueError(
                "`beta` and `faithful` are two remedies for one problem: give one of them. Found "
                f"beta={beta} and faithful={faithful}."
            )
        self.full, self.ignore_nan = full, ignore_nan
        self.beta, self.faithful = beta, faithful

    @abstractmethod
    def noise(self) -> Noise:
        """Return the family of distributions around the prediction."""

    def base_loss(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the negative log-likelihood, summed, and the number of valid elements."""
        mean, log_var = self._split(prediction)
        return functional.noise_nll(
            self.noise(),
            mean,
            log_var,
            target,
            mask,
            full=self.full,
            ignore_nan=self.ignore_nan,
            beta=self.beta,
            faithful=self.faithful,
        )

    def distribution(self, prediction: Any) -> Distribution:
        """Return the distribution around the mean with the predicted standard deviation."""
        mean, log_var = self._split(prediction)
        return self.noise().around(mean, torch.exp(0.5 * log_var))

    def settings(self) -> dict[str, Any]:
        """Return the settings that are printed, with their defaults."""
        own = {"full": False, "ignore_nan": False, "beta": 0.0, "faithful": False}
        return super().settings() | own


class HeteroscedasticGaussianHead(NoisyRegressionHead):
    r"""Scores a regression whose network also predicts the Gaussian noise of every element.

    Returns the mean over valid elements, without :math:`\tfrac12 \log 2\pi` unless ``full``, of

    .. math:: \tfrac12 e^{-s_i} (f_i - y_i)^2 + \tfrac12 s_i, \qquad s_i = \log \sigma_i^2.

    Args:
        sigma_bounds: The interval that every predicted :math:`\sigma_i` is clamped to. Outside of
            it a prediction gets no gradient, so it should be wider than any noise you expect.
        full: Whether to add the constant.
        ignore_nan: Whether to leave out elements whose target is nan.
        beta: Multiplies the term of each element by :math:`\sigma_i^{2\beta}`, without a gradient.
            The plain likelihood (0) divides the gradient of the mean by the variance, so that
            elements whose noise is overestimated are hardly fitted. 0.5 corrects this, and 1 gives
            the mean the gradient of the plain error.
        faithful: Whether to fit the mean as if every :math:`\sigma_i` were 1, by an added term. The
            likelihood then trains only the variance, and the mean is fitted as well as without
            a variance. If the variance should not train the layers that both share, detach their
            output before the layer that predicts ``log_var``.

    Shape:
        - ``prediction``: a pair ``(mean, log_var)``, both :math:`(*)`.
        - ``target``: same as ``mean``; floating.
        - ``mask``: same as ``mean``, or that shape without its channel axis (axis 1). Bool: True
          where the target is used. Floating: the weight of each element.
        - output: scalar; exactly 0 if no element is valid.

    Raises:
        TypeError: If the prediction is not a pair, a tensor is not floating, or the mask is
            neither bool nor floating.
        ValueError: If the shapes differ.

    Example:
        >>> head = HeteroscedasticGaussianHead()
        >>> prediction = torch.zeros(2), torch.tensor([0.0, 0.0])
        >>> head(prediction, torch.tensor([1.0, 0.0])).item()
        0.25

    References:
        Kendall and Gal, *What Uncertainties Do We Need in Bayesian Deep Learning for Computer
        Vision?*, NeurIPS 2017, equation 8; ``beta``: Seitzer et al., *On the Pitfalls of
        Heteroscedastic Uncertainty Estimation with Probabilistic Neural Networks*, ICLR 2022;
        ``faithful``: Stirn et al., *Faithful Heteroscedastic Regression with Neural Networks*,
        AISTATS 2023.
    """

    def noise(self) -> Noise:
        """Return ``functional.GAUSSIAN_NOISE``."""
        return functional.GAUSSIAN_NOISE


class HeteroscedasticLaplaceHead(NoisyRegressionHead):
    r"""Scores a regression whose network also predicts the Laplace noise of every element.

    Returns the mean over valid elements, without :math:`\tfrac12 \log 2` unless ``full``, of

    .. math:: \sqrt2\, e^{-s_i/2} |f_i - y_i| + \tfrac12 s_i, \qquad s_i = \log \sigma_i^2,

    where :math:`\sigma_i` is the standard deviation. Arguments, shapes and errors are those of
    :class:`~uncertainty_mtl.HeteroscedasticGaussianHead`, but ``beta`` multiplies by
    :math:`\sigma_i^{\beta}`, because the weight of an error here is :math:`\sqrt2 / \sigma_i`.

    Example:
        >>> head = HeteroscedasticLaplaceHead()
        >>> prediction = torch.zeros(2), torch.zeros(2)
        >>> round(head(prediction, torch.tensor([1.0, 0.0])).item(), 4)
        0.7071

    References:
        Kendall and Gal, *What Uncertainties Do We Need in Bayesian Deep Learning for Computer
        Vision?*, NeurIPS 2017, section 3.
    """

    def noise(self) -> Noise:
        """Return ``functional.LAPLACE_NOISE``."""
        return functional.LAPLACE_NOISE


class HeteroscedasticSoftmaxHead(NoiseHead):
    r"""Scores a classification whose network also predicts how noisy its logits are.

    The noise on the logits is Gaussian. Returns the mean over valid elements, estimated from T
    samples, of

    .. math:: -\log \tfrac1T \sum_t \mathrm{softmax}(f + \sigma \epsilon_t)_y,
              \qquad \epsilon_t \sim \mathcal{N}(0, 1), \quad s = \log \sigma^2.

    By Jensen's inequality the estimate is biased upwards; more samples make the bias smaller.

    Args:
        num_samples: The number T of samples, both in training and in evaluation.
        ignore_index: Label of the elements to leave out.
        sigma_bounds: The interval that every predicted :math:`\sigma` is clamped to. Outside of it
            a prediction gets no gradient, so it should be wider than any noise you expect.

    Shape:
        - ``prediction``: a pair ``(logits, log_var)``, :math:`(N, C, *)` and the same, or
          :math:`(N, 1, *)` for one noise scale per element.
        - ``target``: labels, :math:`(N, *)`; any integer dtype.
        - ``mask``: same as ``target``. Bool: True where the target is used. Floating: the weight of
          each element.
        - output: scalar; exactly 0 if no element is valid.

    Raises:
        TypeError: If the prediction is not a pair, or a dtype does not fit.
        ValueError: If the shapes do not fit, or on the CPU a label is outside 0..C-1.

    Example:
        >>> head = HeteroscedasticSoftmaxHead()
        >>> quiet = torch.zeros(1, 4), torch.full((1, 1), -20.0)
        >>> round(head(quiet, torch.tensor([2])).item(), 3)  # log(4)
        1.386

    References:
        Kendall and Gal, *What Uncertainties Do We Need in Bayesian Deep Learning for Computer
        Vision?*, NeurIPS 2017, equation 12.
    """

    def __init__(
        self,
        *,
        num_samples: int = 10,
        ignore_index: int = -100,
        sigma_bounds: tuple[float, float] = (1e-6, 1e6),
    ) -> None:
        super().__init__(sigma_bounds)
        check_count("num_samples", num_samples)
        self.num_samples = num_samples
        self.ignore_index = ignore_index

    def base_loss(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the negative log-likelihood, summed, and the number of valid elements."""
        logits, log_var = self._split(prediction)
        return functional.noisy_softmax_nll(
            logits, log_var, target, mask, self.num_samples, self.ignore_index
        )

    def distribution(self, prediction: Any) -> Categorical:
        """Return the categorical distribution averaged over samples, classes moved to the end."""
        logits, log_var = self._split(prediction)
        sigma = torch.exp(0.5 * log_var)
        samples = [
            torch.softmax(logits + sigma * torch.randn_like(logits), dim=1)
            for _ in range(self.num_samples)
        ]
        return Categorical(probs=torch.stack(samples).mean(0).movedim(1, -1))

    def settings(self) -> dict[str, Any]:
        """Return the settings and their defaults, for printing."""
        return super().settings() | {"num_samples": 10, "ignore_index": -100}
