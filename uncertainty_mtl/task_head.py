"""The contract of a task head: a likelihood, and the sigma that it learns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from uncertainty_mtl._checks import check_count, check_reduced_loss, check_sigma
from uncertainty_mtl.forms import SCALE_INSIDE, SOFTMAX, BaseLoss, PowerForm
from uncertainty_mtl.functional import mean_nll
from uncertainty_mtl.parameters import KeepsDtype, gathered, is_usable, project, write


class TaskHead(KeepsDtype, ABC):
    r"""Base class of all heads: the likelihood of one task, and the sigma that it learns.

    A head turns the prediction and target of one task into a negative log-likelihood whose scale
    :math:`\sigma` is learned. It is not an output layer: the network's outputs are its input.
    Derive from it to add a likelihood: say how the plain error is measured (:meth:`base_loss`), how
    the scale enters (``form``) and which distribution that is (:meth:`distribution`). With a form,
    reduced losses, the closed form and the start from data work without further code. Without one,
    write :meth:`fit_scale` for a start from data. The page "Write a head" shows a Student's t, and
    ``elements.used_elements`` applies masks of every kind.

    ``log_var`` holds :math:`s = \log \sigma^2`. The logarithm is learned because a raw sigma could
    cross zero. It stays float32 whatever the model is cast to. ``num_batches_tracked`` counts the
    batches from which a loss has set it. Training a head by itself does not count: the first batch
    of a loss then replaces this sigma, unless the head is frozen.

    Args:
        form: The weight and the penalty as functions of :math:`s`, a
            :class:`~uncertainty_mtl.forms.PowerForm`; ``None`` if :meth:`base_loss` is the negative
            log-likelihood already.
        init_sigma: Where :math:`\sigma` starts. ``None`` leaves that to the first batch of an
            :class:`~uncertainty_mtl.UncertaintyWeightedLoss`; a head used by itself starts at 1.
        sigma_bounds: The interval ``(low, high)`` that :math:`\sigma` is kept in. A training
            forward first projects ``log_var`` onto it, in place, so that neither a huge loss nor a
            loss of 0 can drive it to infinity. An optimum within the bounds stays where it is.
        num_channels: ``None`` for one sigma for all elements, or C for one per channel (axis 1).
        constant: The constant per valid element that the form leaves out; the head adds it.
        scale_inside: For ``form=None``: whether :meth:`base_loss` uses ``log_var`` itself. If not,
            the likelihood has no scale, and the head has no parameter.

    Raises:
        ValueError: If the bounds are not ``0 < low < high``, or the start is outside of them.

    Example:
        A likelihood of your own, :math:`p(r) \propto e^{-(r/\sigma)^4}/\sigma`, whose negative
        logarithm is :math:`e^{-2s} r^4 + s/2`:

        >>> from uncertainty_mtl.forms import BaseLoss, PowerForm
        >>> class QuarticHead(TaskHead):
        ...     def __init__(self, *, init_sigma=None):
        ...         super().__init__(form=PowerForm(1, power=2), init_sigma=init_sigma)
        ...
        ...     def base_loss(self, prediction, target, mask=None):
        ...         residual = prediction - target
        ...         if mask is None:
        ...             mask = torch.ones_like(residual, dtype=torch.bool)
        ...         residual = torch.where(mask, residual, 0.0)  # it may be nan
        ...         return BaseLoss((residual**4).sum(), mask.sum().float())
        ...
        ...     def distribution(self, prediction):
        ...         raise TypeError("torch.distributions has no such density")
        >>> QuarticHead()(torch.tensor([0.0]), torch.tensor([2.0])).item()
        16.0
    """

    log_var: Tensor | None
    num_batches_tracked: Tensor | None
    __jit_unused_properties__ = ("sigma", "weight")  # A scripted model may hold a head.

    def __init__(
        self,
        *,
        form: PowerForm | None,
        init_sigma: float | None = None,
        sigma_bounds: tuple[float, float] = (1e-6, 1e6),
        num_channels: int | None = None,
        constant: float = 0.0,
        scale_inside: bool = False,
    ) -> None:
        super().__init__()
        check_sigma(init_sigma, sigma_bounds)
        check_count("num_channels", num_channels, or_none="one sigma for all elements")
        if not (form is None or isinstance(form, PowerForm)):
            raise TypeError(
                "The `form` of a head should be a PowerForm, or None. Found "
                f"{type(form).__name__}. A loss has other forms for all of its heads: "
                "`UncertaintyWeightedLoss(heads, form='liebel_koerner')`."
            )
        self.form = form
        self.init_sigma = init_sigma
        self.sigma_bounds = sigma_bounds
        self.num_channels = num_channels
        self.constant = constant
        self.frozen = False
        self.num_resets = 0
        log_var = count = None
        if form is not None or scale_inside:
            # A single sigma has an axis, too: code that exempts 1-D parameters from weight decay
            # would overlook a 0-dim one.
            log_var = nn.Parameter(torch.empty(num_channels or 1, dtype=torch.float32))
            count = torch.empty(() if num_channels is None else num_channels, dtype=torch.long)
        self.register_parameter("log_var", log_var)
        self.register_buffer("num_batches_tracked", count)
        TaskHead.reset_parameters(self)

    @abstractmethod
    def base_loss(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the plain error summed over valid elements, and their number.

        With ``form=None`` the error is the negative log-likelihood.
        """

    @abstractmethod
    def distribution(self, prediction: Any) -> Distribution:
        """Return the distribution of the target that the head assumes for this prediction."""

    @property
    def sigma(self) -> Tensor:
        r"""The scale :math:`\sigma = e^{s/2}`, detached; 0-dim, or ``(C,)``; nan if it has none."""
        return self._read(lambda log_var: torch.exp(0.5 * log_var), without=math.nan)

    @property
    def weight(self) -> Tensor:
        """The factor that now multiplies the base loss, detached; 0-dim, or ``(C,)``.

        For an exact softmax it multiplies the logits.
        """
        form = SOFTMAX if self.form is None else self.form
        return self._read(form.weight, without=1.0)

    @torch.jit.unused  # A scripted model may hold a head that it does not call.
    def forward(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the scalar negative log-likelihood of ``target``; shapes as in the class."""
        return self.nll(self.base_loss(prediction, target, mask))

    def weigh(self, loss: Tensor) -> Tensor:
        """Return the scalar negative log-likelihood from an already reduced base loss.

        Args:
            loss: The mean of the base loss over the valid elements, 0-dim, or ``(C,)`` per channel.

        Raises:
            TypeError: If ``loss`` is not a floating-point tensor.
            ValueError: If ``loss`` has another shape, or the head needs the elements themselves.
        """
        self.check_reduced(loss)
        loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
        return self.nll(BaseLoss(loss, torch.ones_like(loss)))

    def check_reduced(self, loss: object) -> None:
        """Raise unless ``loss`` is a reduced loss that this head can weigh."""
        if self.form is None:
            raise ValueError(
                f"{type(self).__name__} should be given predictions and targets. Found a reduced "
                "loss, from which a likelihood with its scale inside cannot be computed. Pass "
                "both, or choose a head that weighs its error."
            )
        check_reduced_loss(loss, () if self.num_channels is None else (self.num_channels,))

    def nll(self, base: BaseLoss) -> Tensor:
        """Return the scalar negative log-likelihood for a base loss; 0 if nothing is valid."""
        if self.form is None:
            return mean_nll(SCALE_INSIDE, base, base.summed.detach().new_zeros(1))
        return mean_nll(self.form, base, self.bounded_log_var(), self.constant)

    def bounded_log_var(self) -> Tensor:
        """Return ``log_var`` within its bounds; in training mode, project the parameter itself."""
        if self.log_var is None:
            raise ValueError(f"{type(self).__name__} has no sigma of its own.")
        low, high = self.log_var_bounds()
        if self.training:
            project([self.log_var], low, high)
        log_var = self.log_var.detach() if self.frozen else self.log_var
        # A copy: the next forward projects the parameter in place, and autograd may have saved it.
        return log_var.clone() if self.training else log_var.clamp(low, high)

    def log_var_bounds(self) -> tuple[float, float]:
        """Return ``sigma_bounds`` as bounds of ``log_var``."""
        low, high = self.sigma_bounds
        return 2 * math.log(low), 2 * math.log(high)

    def fit_scale(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> None:
        """Set a scale inside the likelihood to its optimum for fixed predictions.

        By default it does nothing, because heads with a form have a closed form.
        """

    def freeze(self, frozen: bool = True) -> None:
        """Keep sigma at its value, whatever the estimator, until ``freeze(False)``.

        It holds even if other code sets ``requires_grad``, as adapters do. Call the optimizer's
        ``zero_grad`` with ``set_to_none=True``, the default: it then skips the parameter, while
        momentum would move one whose gradient is zero. DistributedDataParallel waits for the
        gradient of a sigma that is frozen after wrapping, and does not synchronise one that was
        frozen before. Wrap again after freezing or unfreezing, or wrap with
        ``find_unused_parameters=True``.
        """
        self.frozen = frozen
        if self.log_var is not None:
            self.log_var.requires_grad_(not frozen)

    def set_to_optimum(self, base: BaseLoss) -> None:
        """Set sigma to its closed-form optimum for a base loss, where that loss is usable."""
        if self.form is None or self.log_var is None or self.num_batches_tracked is None:
            return
        with torch.no_grad():
            mean = base.mean().float().reshape(-1)
            optimum = self.form.optimal_log_var(mean).clamp(*self.log_var_bounds())
            best = torch.where(is_usable(mean), optimum, gathered(self.log_var))
            write((self.log_var, best))
            count, usable = self.num_batches_tracked, is_usable(mean)
            count.copy_(torch.maximum(count, usable.view_as(count).long()))

    def reset_parameters(self) -> None:
        """Reset sigma to its initial value; call it after ``to_empty``."""
        if self.log_var is None or self.num_batches_tracked is None:
            return
        start = 2 * math.log(1.0 if self.init_sigma is None else self.init_sigma)
        self.num_resets += 1
        # Uses `nn.init`, which transformers patches so that loaded values are not overwritten.
        nn.init.constant_(self.log_var, start)
        nn.init.zeros_(self.num_batches_tracked)
        if self.log_var.device != self.num_batches_tracked.device:  # one of them on "meta"
            return
        with torch.no_grad():
            # transformers may keep a loaded sigma. It counts as set, even if its checkpoint held
            # no count.
            moved = (self.log_var != start).view_as(self.num_batches_tracked).long()
            self.num_batches_tracked.copy_(torch.maximum(self.num_batches_tracked, moved))

    def settings(self) -> dict[str, Any]:
        """Return the settings that are printed, with their defaults."""
        return {"init_sigma": None, "sigma_bounds": (1e-6, 1e6), "num_channels": None}

    def extra_repr(self) -> str:
        """Return the settings that differ from their defaults, for printing."""
        return changed_settings(self, self.settings())

    def _read(self, function: Callable[[Tensor], Tensor], without: float) -> Tensor:
        if self.log_var is None:
            return torch.full((), without, dtype=torch.float32)
        # Clamped, because the next forward will put it within the bounds as well.
        value = function(gathered(self.log_var.detach()).clamp(*self.log_var_bounds()))
        return value.squeeze(0) if self.num_channels is None else value

    def _per_channel(self, value: Tensor, ndim: int) -> Tensor:
        # (C,) -> (C, 1, ..., 1), which lines up with axis 1 of a tensor of `ndim` axes.
        return value if self.num_channels is None else value.view(-1, *[1] * (ndim - 2))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        key, count = prefix + "num_batches_tracked", self.num_batches_tracked
        if count is not None and prefix + "log_var" in state_dict:
            # A checkpoint of an older version may hold no count. Its sigma counts as set.
            found = state_dict.get(key, torch.ones_like(count))
            state_dict[key] = found.expand(count.shape) if found.ndim == 0 else found
        self.num_resets += 1
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def changed_settings(module: nn.Module, defaults: dict[str, Any]) -> str:
    """Return ``name=value`` of each attribute that differs from its default, for printing."""
    changed = {
        k: getattr(module, k) for k, default in defaults.items() if getattr(module, k) != default
    }
    return ", ".join(f"{name}={value!r}" for name, value in changed.items())
