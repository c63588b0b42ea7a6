r"""How a base loss and a scale make a task's term: :math:`w(s)\,L + r(s)`, as data.

Every weighting by uncertainty, whether derived from a likelihood or found in the wild, is a weight
:math:`w` on the base loss :math:`L` (mean squared error, mean absolute error, cross-entropy) and a
penalty :math:`r` that keeps the weight from vanishing, both functions of :math:`s = \log\sigma^2`.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class BaseLoss(NamedTuple):
    """The plain error that a head weighs, before its mean is taken.

    A sum and a count, not a mean: parts of a batch then combine exactly, and a part without a
    single valid element needs no special case.

    Attributes:
        summed: Error summed over the valid elements, shape ``()``, or ``(C,)`` per channel.
        num_valid: Number of valid elements (their total class weight, where classes are
            weighted), a floating tensor of the same shape.
    """

    summed: Tensor
    num_valid: Tensor

    def mean(self) -> Tensor:
        """Return the mean over the valid elements, or 0 where there are none."""
        return self.summed / at_least_one_element(self.num_valid)


class Form(ABC):
    r"""A weight :math:`w(s)` on the base loss and a penalty :math:`r(s)`."""

    @abstractmethod
    def weight(self, log_var: Tensor) -> Tensor:
        """Return :math:`w(s)`."""

    @abstractmethod
    def penalty(self, log_var: Tensor) -> Tensor:
        """Return :math:`r(s)`."""

    @abstractmethod
    def optimal_log_var(self, loss: Tensor) -> Tensor:
        """Return the :math:`s` that minimises the term for a fixed mean base loss."""

    @abstractmethod
    def loss_at_optimum(self, log_var: Tensor) -> Tensor:
        """Return the mean base loss whose optimum is :math:`s`: the inverse of the former."""

    def term(self, base: BaseLoss, log_var: Tensor, constant: float = 0.0) -> Tensor:
        r"""Return the mean of :math:`w(s)\,\text{error} + r(s)` over valid elements, 0-dim.

        Exactly 0, with zero gradients, if no element is valid: a task without labels must not pull
        its own scale to the bound.
        """
        # Explicit, as a 0-dim float64 error times a 1-dim float32 weight would be a float32.
        log_var = log_var.to(base.summed.dtype)
        penalty = self.penalty(log_var) + constant
        total = self.weight(log_var) * base.summed + penalty * base.num_valid
        return total.sum() / at_least_one_element(base.num_valid.sum())


@dataclass(frozen=True)
class PowerForm(Form):
    r"""The form of a likelihood: :math:`A\,e^{-ps}\,L + q\,s`.

    Its optimum is :math:`s = \tfrac1p \log(pAL/q)`, where weight times base loss is
    :math:`c = q/p`. Up to a constant the penalty is :math:`-c \log w`.

    Attributes:
        amplitude: :math:`A`, above 0.
        power: :math:`p`, above 0.
        slope: :math:`q`, above 0.
    """

    amplitude: float
    power: float
    slope: float = 0.5

    def weight(self, log_var: Tensor) -> Tensor:
        """Return :math:`A e^{-ps}`."""
        return self.amplitude * torch.exp(-self.power * log_var)

    def penalty(self, log_var: Tensor) -> Tensor:
        """Return :math:`q s`."""
        return self.slope * log_var

    def optimal_log_var(self, loss: Tensor) -> Tensor:
        r"""Return :math:`\tfrac1p \log(pAL/q)`; minus infinity for a loss of 0."""
        return torch.log(loss * (self.power * self.amplitude / self.slope)) / self.power

    def loss_at_optimum(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`\tfrac{q}{pA} e^{ps}`."""
        return torch.exp(self.power * log_var) * (self.slope / (self.power * self.amplitude))

    @property
    def weighted_optimum(self) -> float:
        """Weight times base loss at the optimum, :math:`c = q/p`."""
        return self.slope / self.power

    def log_weight(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`\log w = \log A - ps`."""
        return math.log(self.amplitude) - self.power * log_var

    def log_var_of(self, log_weight: Tensor) -> Tensor:
        """Return the :math:`s` that has this log-weight."""
        return (math.log(self.amplitude) - log_weight) / self.power


class LiebelKoernerForm(Form):
    r"""The form of AutomaticWeightedLoss: :math:`L/(2p^2) + \log(1 + p^2)`, :math:`s = \log p^2`.

    Never negative, but neither a likelihood nor independent of units: its optimum is
    :math:`p^2 = (L + \sqrt{L^2 + 8L})/4`.

    References:
        Liebel and Koerner, *Auxiliary Tasks in Multi-task Learning*, 2018.
    """

    def weight(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`1/(2p^2)`."""
        return 0.5 * torch.exp(-log_var)

    def penalty(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`\log(1 + p^2)`."""
        return F.softplus(log_var)

    def optimal_log_var(self, loss: Tensor) -> Tensor:
        r"""Return :math:`\log\bigl((L + \sqrt{L^2 + 8L})/4\bigr)`."""
        return torch.log((loss + torch.sqrt(loss.square() + 8 * loss)) / 4)

    def loss_at_optimum(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`2p^4/(1 + p^2)`."""
        return 2 * torch.exp(log_var) * torch.sigmoid(log_var)

    def __repr__(self) -> str:
        return "LiebelKoernerForm()"


GAUSSIAN = PowerForm(amplitude=0.5, power=1.0)
r"""Mean squared error under a Gaussian, with weight :math:`1/(2\sigma^2)`."""

LAPLACE = PowerForm(amplitude=math.sqrt(2), power=0.5)
r"""Mean absolute error under a Laplace distribution, with weight :math:`\sqrt2/\sigma`."""

SOFTMAX = PowerForm(amplitude=1.0, power=1.0)
r"""Cross-entropy in the paper's form, with weight :math:`1/\sigma^2`."""

SYMMETRIC = PowerForm(amplitude=1.0, power=1.0, slope=1.0)
r""":math:`e^{-s} L + s`: the authors' notebook and MultiMAE."""

LIEBEL_KOERNER = LiebelKoernerForm()
"""What AutomaticWeightedLoss computes."""


NAMES = ("nll", "symmetric", "paper", "libmtl", "liebel_koerner")
"""The names that :func:`named_form` knows."""


def named_form(name: str, likelihood: Form) -> Form:
    """Return the form called ``name``, one of ``NAMES``, for a head of this likelihood."""
    if name == "nll":
        return likelihood
    if name == "paper":
        # As the paper is written: absolute errors take the Gaussian's factor too.
        return SOFTMAX if likelihood is SOFTMAX else GAUSSIAN
    return {"symmetric": SYMMETRIC, "libmtl": GAUSSIAN, "liebel_koerner": LIEBEL_KOERNER}[name]


def at_least_one_element(num_valid: Tensor) -> Tensor:
    """Return the count with 0 replaced by 1, to divide by."""
    # Not `clamp(min=1)`: with class weights the count is a sum that may be a fraction.
    return torch.where(num_valid > 0, num_valid, 1.0)
