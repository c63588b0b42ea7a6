"""The heads for classification: softmax and sigmoid with a learned temperature."""

from abc import ABC
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical

from uncertainty_mtl import functional
from uncertainty_mtl._checks import (
    check_between,
    check_channels,
    check_class_weight,
    check_floating,
)
from uncertainty_mtl.forms import SOFTMAX, BaseLoss
from uncertainty_mtl.parameters import write
from uncertainty_mtl.task_head import TaskHead

Numbers: TypeAlias = Tensor | Sequence[float] | float


class ClassificationHead(TaskHead, ABC):
    """Base class of both heads. It keeps the class weights, which the user sets."""

    def _keep(self, name: str, given: Numbers | None) -> None:
        # Keep what was given as well, so that `reset_parameters` can restore it after `to_empty`.
        # The buffer is a setting and therefore not in the state_dict.
        self._given = name, given
        value = None if given is None else torch.as_tensor(given, dtype=torch.float32)
        self.register_buffer(name, value, persistent=False)

    def reset_parameters(self) -> None:
        """Reset sigma to its initial value, and the class weights to those of the constructor."""
        super().reset_parameters()
        name, given = self._given
        buffer = getattr(self, name)
        if buffer is not None and not getattr(given, "is_meta", False):
            buffer.copy_(torch.as_tensor(given, dtype=torch.float32, device=buffer.device))


class ScaledSoftmaxHead(ClassificationHead):
    r"""Learns how uncertain a classification task is, and weighs its cross-entropy accordingly.

    The likelihood is a softmax with temperature :math:`\sigma^2`. The head returns the paper's
    approximation of its mean negative log-likelihood per valid element,

    .. math:: \mathcal{L} = e^{-s}\, \overline{\mathrm{CE}(f, y)} + \tfrac12 s,
              \qquad s = \log \sigma^2,

    whose weight on the mean cross-entropy is :math:`1/\sigma^2` and whose optimum for fixed
    predictions is :math:`\sigma^2 = 2\,\text{CE}`. With ``exact`` it returns the likelihood itself,

    .. math:: \mathcal{L} = \overline{\mathrm{CE}(e^{-s} f, y)}.

    The two agree at :math:`\sigma = 1`. The exact form is temperature scaling: use it to calibrate
    frozen logits. It cannot weigh a task whose last layer is also being trained, because scaling
    the logits and :math:`\sigma^2` together changes nothing.

    Args:
        init_sigma: Where :math:`\sigma`, the root of the temperature, starts. ``None`` takes it
            from the first batch; an ``exact`` head starts at 1.
        sigma_bounds: The interval that :math:`\sigma` is kept in; see
            :class:`~uncertainty_mtl.TaskHead`.
        full: Has no effect, because this likelihood drops no constant. The other heads use it.
        ignore_index: Label of the elements to leave out, as in :class:`torch.nn.CrossEntropyLoss`.
        exact: Whether to use the likelihood itself instead of the paper's approximation.
        class_weight: Weight of each class, a tensor of shape ``(C,)`` or a list of numbers.
            :class:`torch.nn.CrossEntropyLoss` calls it ``weight``; here that name means the weight
            of the task.
        label_smoothing: As in :class:`torch.nn.CrossEntropyLoss`, in [0, 1].
        low_memory: Whether to compute the cross-entropy in chunks, which takes less than half of
            the memory that the loss needs beside the logits. The gradient is computed together with
            the loss, so there is only one backward pass and no second derivative. Floating masks
            and transforms of ``torch.func`` are not supported then. Compiled code ignores this
            option.

    Shape:
        - ``prediction``: logits, :math:`(N, C, *)`.
        - ``target``: labels, :math:`(N, *)`; any integer dtype.
        - ``mask``: same as ``target``. Bool: True where the target is used. Floating: the weight
          of each element.
        - output: scalar; exactly 0 if no element is valid. float32, or float64 for float64.

    Raises:
        TypeError: If the logits are not floating, the labels not integers, or the mask
            neither bool nor floating.
        ValueError: If the shapes do not fit, or an argument is out of its range. On the CPU also
            for a label outside 0..C-1. CUDA stops with its own assertion instead, because checking
            the labels would make the host wait for the device.

    Example:
        >>> head = ScaledSoftmaxHead(ignore_index=255)
        >>> logits = torch.zeros(1, 4, 3)
        >>> round(head(logits, torch.tensor([[0, 3, 255]])).item(), 4)  # log(4)
        1.3863

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics*, CVPR 2018, equations 8 to 10.
    """

    class_weight: Tensor | None

    def __init__(
        self,
        *,
        init_sigma: float | None = None,
        sigma_bounds: tuple[float, float] = (1e-6, 1e6),
        full: bool = False,
        ignore_index: int = -100,
        exact: bool = False,
        class_weight: Tensor | Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        low_memory: bool = False,
    ) -> None:
        super().__init__(
            form=None if exact else SOFTMAX,
            init_sigma=init_sigma,
            sigma_bounds=sigma_bounds,
            scale_inside=exact,
        )
        check_between("label_smoothing", label_smoothing, 0, 1, may_be_low=True)
        self.ignore_index = ignore_index
        self.exact = exact
        self.label_smoothing, self.low_memory = label_smoothing, low_memory
        self._keep("class_weight", class_weight)
        if self.class_weight is not None:
            check_class_weight(self.class_weight)

    def base_loss(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the sum of the cross-entropy, and the number of valid elements.

        An ``exact`` head divides the logits by the temperature first.
        """
        log_var = self.bounded_log_var() if self.exact else None
        return self._cross_entropy(prediction, target, mask, log_var)

    def fit_scale(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> None:
        """Set the temperature of the exact form to its optimum for fixed logits, by bisection.

        The loss is convex in :math:`e^{-s}`, so its slope in :math:`s` changes its sign once.
        """
        if not self.exact:
            return
        low, high = (torch.tensor([b], device=prediction.device) for b in self.log_var_bounds())
        for _ in range(40):
            middle = ((low + high) / 2).requires_grad_()
            with torch.enable_grad():
                base = self._cross_entropy(prediction.detach(), target, mask, middle)
                (slope,) = torch.autograd.grad(base.mean(), middle)
            if base.num_valid == 0:
                return
            rises = slope > 0
            low = torch.where(rises, low, middle.detach())
            high = torch.where(rises, middle.detach(), high)
        if self.log_var is not None:
            write((self.log_var, (low + high) / 2))

    def distribution(self, prediction: Tensor) -> Categorical:
        """Return the categorical distribution of the tempered logits, classes moved to the end."""
        logits = functional.temper(prediction, self.bounded_log_var())
        return Categorical(logits=logits.movedim(1, -1))

    def settings(self) -> dict[str, Any]:
        """Return the settings that are printed, with their defaults."""
        own = {"ignore_index": -100, "exact": False, "label_smoothing": 0.0, "low_memory": False}
        return super().settings() | own

    def _cross_entropy(
        self, logits: Tensor, target: Tensor, mask: Tensor | None, log_var: Tensor | None
    ) -> BaseLoss:
        if self.class_weight is not None:
            check_class_weight(self.class_weight, logits)
        return functional.cross_entropy(
            logits,
            target,
            mask,
            ignore_index=self.ignore_index,
            class_weight=self.class_weight,
            label_smoothing=self.label_smoothing,
            log_var=log_var,
            low_memory=self.low_memory,
        )


class ScaledSigmoidHead(ClassificationHead):
    r"""Learns how uncertain a binary or multi-label task is, and weighs its cross-entropy by that.

    The likelihood is a sigmoid with temperature :math:`\sigma^2`. The head returns, per valid
    element,

    .. math:: \mathcal{L} = e^{-s}\, \overline{\mathrm{BCE}(f, y)} + \tfrac12 s,
              \qquad s = \log \sigma^2,

    which is the paper's form of the softmax for two classes. The weight on the mean binary
    cross-entropy is :math:`1/\sigma^2`, and the optimum for fixed predictions is
    :math:`\sigma^2 = 2\,\text{BCE}`.

    Args:
        init_sigma: Where :math:`\sigma`, the root of the temperature, starts; ``None`` takes it
            from the first batch.
        sigma_bounds: The interval that :math:`\sigma` is kept in; see
            :class:`~uncertainty_mtl.TaskHead`.
        full: Has no effect, because this likelihood drops no constant. The other heads use it.
        num_channels: ``None`` for one sigma for all elements, or C for one per label (axis 1).
        pos_weight: Weight of the positive targets, a number or one per label, as in
            :class:`torch.nn.BCEWithLogitsLoss`, with the labels on axis 1.
        ignore_nan: Whether to leave out elements whose target is nan.

    Shape:
        - ``prediction``: logits, :math:`(*)`, any number of axes; :math:`(N, C, *)` with
          ``num_channels`` or a ``pos_weight`` per label.
        - ``target``: same as ``prediction``, never broadcast; floating, from 0 to 1.
        - ``mask``: same as ``prediction``, or that shape without its channel axis (axis 1). Bool:
          True where the target is used. Floating: the weight of each element.
        - output: scalar; exactly 0 if no element is valid. float32, or float64 for float64.

    Raises:
        TypeError: If logits or target are not floating, or the mask is neither bool nor floating.
        ValueError: If the shapes differ, or an argument is out of its range.

    Example:
        >>> head = ScaledSigmoidHead()
        >>> round(head(torch.zeros(3), torch.tensor([0.0, 1, 1])).item(), 4)  # log(2)
        0.6931

    References:
        Kendall, Gal and Cipolla, *Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
        Geometry and Semantics*, CVPR 2018, equations 8 to 10, for two classes.
    """

    pos_weight: Tensor | None

    def __init__(
        self,
        *,
        init_sigma: float | None = None,
        sigma_bounds: tuple[float, float] = (1e-6, 1e6),
        full: bool = False,
        num_channels: int | None = None,
        pos_weight: Numbers | None = None,
        ignore_nan: bool = False,
    ) -> None:
        super().__init__(
            form=SOFTMAX,
            init_sigma=init_sigma,
            sigma_bounds=sigma_bounds,
            num_channels=num_channels,
        )
        self.ignore_nan = ignore_nan
        self._keep("pos_weight", pos_weight)
        weight = self.pos_weight
        if weight is not None and (weight.ndim > 1 or not weight.numel()):
            raise ValueError(
                "`pos_weight` should be a number, or hold one for each label, shape (C,). Found "
                f"`pos_weight.shape = {tuple(weight.shape)}`."
            )

    def base_loss(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the sum of the binary cross-entropy, and the number of valid elements."""
        weight = self.pos_weight
        if weight is not None and weight.numel() > 1 and isinstance(prediction, Tensor):
            check_channels(prediction, weight.shape[0], "pos_weight")
        return functional.binary_cross_entropy(
            prediction,
            target,
            mask,
            num_channels=self.num_channels or 1,
            ignore_nan=self.ignore_nan,
            pos_weight=weight,
        )

    def distribution(self, prediction: Tensor) -> Bernoulli:
        """Return the Bernoulli distribution of the tempered logits."""
        check_floating("prediction", prediction)
        log_var = self._per_channel(self.bounded_log_var(), prediction.ndim)
        return Bernoulli(logits=functional.temper(prediction, log_var))

    def settings(self) -> dict[str, Any]:
        """Return the settings that are printed, with their defaults."""
        return super().settings() | {"ignore_nan": False}
