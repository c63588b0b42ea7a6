r"""How a base loss and a sigma combine into a task's term, :math:`w(s)\,L + r(s)`.

Every weighting by uncertainty, whether it follows from a likelihood or was found in public code,
has a weight :math:`w` on the base loss :math:`L` (mean squared error, mean absolute error,
cross-entropy) and a penalty :math:`r` that keeps the weight from vanishing. Both are functions of
:math:`s = \log\sigma^2`. The numbers of a :class:`PowerForm` may be vectors with one entry per
task, so one formula serves both a single head and a loss with all its tasks.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

Number: TypeAlias = float | Tensor


class BaseLoss(NamedTuple):
    """The plain error that a head weighs, as a sum and a count instead of a mean.

    Parts of a batch can then be combined exactly, and a part without any valid element needs no
    special case.

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


@dataclass(frozen=True)
class PowerForm:
    r"""A weight that is a power of sigma, as in most likelihoods: :math:`A\,e^{-ps}\,L + q\,s`.

    Its optimum is :math:`s = \tfrac1p \log(pAL/q)`, where weight times base loss is
    :math:`c = q/p`.

    Args:
        amplitude: :math:`A`.
        power: :math:`p`: the weight falls as :math:`\sigma^{-2p}`.
        slope: :math:`q`, which is 1/2 in a likelihood with one :math:`\sigma` per element.

    Example:
        >>> GAUSSIAN.weight(torch.tensor(0.0)).item()  # 1 / (2 sigma^2)
        0.5
        >>> torch.exp(GAUSSIAN.optimal_log_var(torch.tensor(9.0))).item()
        9.0
    """

    amplitude: Number
    power: Number
    slope: Number = 0.5

    def weight(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`w = A\,e^{-ps}`."""
        return self.amplitude * torch.exp(-self.power * log_var)

    def penalty(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`r = q\,s`."""
        return self.slope * log_var

    def optimal_log_var(self, loss: Tensor) -> Tensor:
        r"""Return :math:`\tfrac1p \log(pAL/q)`; minus infinity for a loss of 0."""
        return torch.log(loss * (self.power * self.amplitude / self.slope)) / self.power

    def times(self, factor: Number) -> "PowerForm":
        """Return this form with weight and penalty multiplied by ``factor``."""
        return PowerForm(self.amplitude * factor, self.power, self.slope * factor)

    def loss_at_optimum(self, log_var: Tensor) -> Tensor:
        r"""Return the loss whose optimum is :math:`s`, :math:`\tfrac{q}{pA} e^{ps}`."""
        return torch.exp(self.power * log_var) * (self.slope / (self.power * self.amplitude))


@dataclass(frozen=True)
class LiebelKoernerForm:
    r"""The form of AutomaticWeightedLoss: :math:`L/(2p^2) + \log(1 + p^2)`, :math:`s = \log p^2`.

    It is never negative, but it is not a likelihood, and its weights depend on the units of the
    losses: the optimum is :math:`p^2 = (L + \sqrt{L^2 + 8L})/4`.

    Args:
        factor: A factor on both weight and penalty.

    References:
        Liebel and Koerner, *Auxiliary Tasks in Multi-task Learning*, 2018.
    """

    factor: Number = 1.0

    def weight(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`w = 1/(2p^2)`."""
        return 0.5 * self.factor * torch.exp(-log_var)

    def penalty(self, log_var: Tensor) -> Tensor:
        r"""Return :math:`r = \log(1 + p^2)`."""
        return self.factor * F.softplus(log_var)

    def times(self, factor: Number) -> "LiebelKoernerForm":
        """Return this form with weight and penalty multiplied by ``factor``."""
        return LiebelKoernerForm(self.factor * factor)

    def optimal_log_var(self, loss: Tensor) -> Tensor:
        r"""Return :math:`\log\bigl((L + \sqrt{L^2 + 8L})/4\bigr)`."""
        return torch.log((loss + torch.sqrt(loss.square() + 8 * loss)) / 4)

    def loss_at_optimum(self, log_var: Tensor) -> Tensor:
        r"""Return the loss whose optimum is :math:`s`, :math:`2p^4/(1 + p^2)`."""
        return 2 * torch.exp(log_var) * torch.sigmoid(log_var)


Form: TypeAlias = PowerForm | LiebelKoernerForm

GAUSSIAN = PowerForm(amplitude=0.5, power=1.0)
r"""Mean squared error under a Gaussian, with weight :math:`1/(2\sigma^2)`."""

LAPLACE = PowerForm(amplitude=math.sqrt(2), power=0.5)
r"""Mean absolute error under a Laplace distribution, with weight :math:`\sqrt2/\sigma`."""

SOFTMAX = PowerForm(amplitude=1.0, power=1.0)
r"""Cross-entropy in the paper's form, with weight :math:`1/\sigma^2`."""

SYMMETRIC = PowerForm(amplitude=1.0, power=1.0, slope=1.0)
r""":math:`e^{-s} L + s`, the form of the authors' notebook and of MultiMAE."""

LIEBEL_KOERNER = LiebelKoernerForm()
"""The form of AutomaticWeightedLoss."""

SCALE_INSIDE = PowerForm(amplitude=1.0, power=0.0, slope=0.0)
"""Weight 1 and no penalty, for a base loss that already is a negative log-likelihood."""

FOUND_ELSEWHERE: dict[str, Form] = {
    "symmetric": SYMMETRIC,
    "libmtl": GAUSSIAN,
    "liebel_koerner": LIEBEL_KOERNER,
}
"""Forms that are the same for every likelihood."""

NAMES = ("nll", "paper", *FOUND_ELSEWHERE)
"""The names that :func:`named_form` knows."""


def named_form(name: str, likelihood: Form) -> Form:
    """Return the form called ``name``, one of ``NAMES``, for a head with this likelihood."""
    if name == "nll":
        return likelihood
    if name == "paper":  # The paper uses the Gaussian factor for absolute errors as well.
        return SOFTMAX if likelihood == SOFTMAX else GAUSSIAN
    return FOUND_ELSEWHERE[name]


def weigh(form: Form, losses: Tensor, log_var: Tensor, constant: Tensor | None = None) -> Tensor:
    r"""Return the terms :math:`w(s)\,L + r(s) + \text{constant}`.

    This is the only place that evaluates the formula: for one head, for its channels, and for all
    tasks of a loss.

    Args:
        form: A form whose numbers are floats, or vectors of the shape of the losses.
        losses: Mean base losses, shape ``(E,)``.
        log_var: Shape ``(E,)`` or ``(1,)``.
        constant: The constant per valid element that the form leaves out, shape ``(E,)``.
    """
    if log_var.dtype != losses.dtype:
        log_var = log_var.to(losses.dtype)
    penalty = form.penalty(log_var)
    if constant is not None:
        penalty = penalty + constant
    return torch.addcmul(penalty, form.weight(log_var), losses)


def shares_of(num_valid: Tensor) -> Tensor:
    """Return each channel's share of its task's valid elements; 0 if the task has none.

    Args:
        num_valid: Valid elements in each channel of one task, shape ``(C,)``, or ``(1,)``.
    """
    return num_valid / at_least_one_element(num_valid.sum())


def at_least_one_element(num_valid: Tensor) -> Tensor:
    """Return the count with 0 replaced by 1, for use as a divisor."""
    # Not `clamp(min=1)`: with class weights the count is a sum that may be a fraction.
    return torch.where(num_valid > 0, num_valid, 1.0)
