"""The contract of a task head: a likelihood, and the scale that it learns."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from uncertainty_mtl._checks import check_num_channels, check_reduced_loss, check_sigma
from uncertainty_mtl.forms import BaseLoss, Form, named_form


class TaskHead(nn.Module, ABC):
    r"""A likelihood and the scale it learns: what every head provides.

    A head turns one task's prediction and target into a negative log-likelihood whose scale
    :math:`\sigma` is learned. Derive from it to add a likelihood: say how the plain error is
    measured (:meth:`base_loss`), how the scale enters (``form``) and which distribution that is
    (:meth:`distribution`). The rest follows: reduced losses, the closed form, initialisation.

    ``log_var`` holds :math:`s = \log \sigma^2`. Its logarithm is learned, as a raw sigma may cross
    zero. It stays float32 under ``.to(dtype)``, ``.half()`` and autocast: near -7 the steps of
    bfloat16 are 0.03, and an optimizer's updates would vanish.

    Args:
        form: The weight and the penalty as functions of :math:`s`, see
            :mod:`uncertainty_mtl.forms`; ``None`` if :meth:`base_loss` is the negative
            log-likelihood already, scale included.
        init_sigma: Where :math:`\sigma` starts.
        sigma_bounds: The interval ``(low, high)`` that :math:`\sigma` is kept in. A training
            forward first projects ``log_var`` onto it, in place: a huge first loss then cannot
            throw the scale so far off that it needs thousands of steps to return, and a loss of 0
            cannot drive it to infinity. The projection does not move an optimum within the bounds.
        num_channels: ``None`` for one scale in all, or C for one per channel (axis 1).
        constant: What is added per valid element: the constant that the form drops.

    Raises:
        ValueError: If the bounds are not ``0 < low < high``, or the start is outside of them.

    Example:
        A likelihood of one's own, :math:`p(r) \propto e^{-(r/a)^4}/a` with
        :math:`a = \sigma`, whose negative logarithm is :math:`e^{-2s} r^4 + s/2`:

        >>> from uncertainty_mtl.forms import BaseLoss, PowerForm
        >>> class QuarticHead(TaskHead):
        ...     def __init__(self, *, init_sigma=1.0):
        ...         super().__init__(form=PowerForm(1.0, power=2.0), init_sigma=init_sigma)
        ...
        ...     def base_loss(self, prediction, target, mask=None):
        ...         error = (prediction - target) ** 4
        ...         mask = torch.ones_like(error, dtype=torch.bool) if mask is None else mask
        ...         return BaseLoss(torch.where(mask, error, 0.0).sum(), mask.sum().float())
        ...
        ...     def distribution(self, prediction):
        ...         raise TypeError("torch.distributions has no such density")
        >>> QuarticHead()(torch.tensor([0.0]), torch.tensor([2.0])).item()
        16.0
    """

    log_var: Tensor
    num_batches_tracked: Tensor

    def __init__(
        self,
        *,
        form: Form | None,
        init_sigma: float = 1.0,
        sigma_bounds: tuple[float, float] = (1e-6, 1e6),
        num_channels: int | None = None,
        constant: float = 0.0,
    ) -> None:
        super().__init__()
        check_sigma(init_sigma, sigma_bounds)
        check_num_channels(num_channels)
        self.form = form
        self.init_sigma = init_sigma
        self.sigma_bounds = sigma_bounds
        self.num_channels = num_channels
        self.constant = constant
        self.momentum: float | None = None
        self.frozen = False
        # One axis even for a single scale: filters that spare 1-D parameters from weight decay
        # overlook a 0-dim one.
        self.log_var = nn.Parameter(torch.empty(num_channels or 1, dtype=torch.float32))
        self.reset_parameters()

    @abstractmethod
    def base_loss(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the plain error summed over valid elements, and their number."""

    @abstractmethod
    def distribution(self, prediction: Any) -> Distribution:
        """Return the distribution of the target that the head assumes for this prediction."""

    @property
    def sigma(self) -> Tensor:
        r"""The scale :math:`\sigma = e^{s/2}`, detached; 0-dim, or ``(C,)``."""
        return self._for_logging(lambda log_var: torch.exp(0.5 * log_var))

    @property
    def weight(self) -> Tensor:
        """The factor now multiplying the base loss, detached; 0-dim, or ``(C,)``."""
        return self._for_logging(self.weight_at)

    @property
    def learns(self) -> bool:
        """Whether ``log_var`` is a parameter."""
        return isinstance(self.log_var, nn.Parameter)

    def weight_at(self, log_var: Tensor) -> Tensor:
        """Return the factor on the base loss at a scale; of the logits, if the error has none."""
        return torch.exp(-log_var) if self.form is None else self.form.weight(log_var)

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
        return self.nll(self.reduced(loss))

    def reduced(self, loss: Tensor) -> BaseLoss:
        """Return an already reduced base loss in the form that :meth:`nll` takes."""
        if self.form is None:
            raise ValueError(
                f"{type(self).__name__} should be given predictions and targets. Found a reduced "
                "loss, from which a likelihood with its scale inside cannot be computed. Pass "
                "both, or choose a head that weighs its error."
            )
        check_reduced_loss(loss, () if self.num_channels is None else (self.num_channels,))
        loss = loss.to(torch.promote_types(loss.dtype, torch.float32))
        return BaseLoss(loss, torch.ones_like(loss))

    def nll(self, base: BaseLoss, log_var: Tensor | None = None) -> Tensor:
        """Return the scalar negative log-likelihood for a base loss; 0 if nothing is valid.

        Args:
            base: What :meth:`base_loss` or :meth:`reduced` returned.
            log_var: The scale to use instead of the head's own.
        """
        if self.form is None:
            return base.mean()
        log_var = self.bounded_log_var() if log_var is None else log_var
        return self.form.term(base, log_var, self.constant)

    def bounded_log_var(self) -> Tensor:
        """Return ``log_var`` within its bounds; in training mode, project the parameter itself."""
        if not self.training:
            return self.log_var.clamp(*self._log_var_bounds())
        # The parameter, not a clamped copy of it: a clamp has no gradient outside its bounds, so a
        # parameter that was thrown out would never come back.
        with torch.no_grad():
            self.log_var.clamp_(*self._log_var_bounds())
        return self.log_var

    def fit_scale(self, prediction: Any, target: Tensor, mask: Tensor | None = None) -> None:
        """Set a scale inside of the likelihood to its optimum for fixed predictions.

        For heads that have no closed form; nothing here, as the others have one.
        """

    def freeze(self, frozen: bool = True) -> None:
        """Keep sigma where it is, whatever the estimator, until ``freeze(False)``.

        An optimizer skips a parameter without a gradient, so call its ``zero_grad`` with
        ``set_to_none=True``, the default: momentum moves a parameter whose gradient is a zero.
        """
        self.frozen = frozen
        if self.learns:
            self.log_var.requires_grad_(not frozen)

    def set_to_optimum(self, base: BaseLoss) -> None:
        """Set sigma to its closed-form optimum for a base loss; leave it if nothing is valid."""
        if self.form is None:
            return
        with torch.no_grad():
            self._move_to(self.form.optimal_log_var(base.mean()), where=base.num_valid > 0)
            if self.momentum is not None:
                self.num_batches_tracked.add_(base.num_valid.sum() > 0)

    def use_form(self, name: str) -> None:
        """Weigh the error as the form of this name does; see :func:`forms.named_form`.

        Raises:
            ValueError: If the head weighs no error.
        """
        if self.form is not None:
            self.form = named_form(name, self.form)
        elif name != "nll":
            raise ValueError(
                f"{type(self).__name__} should have `form='nll'`, as its scale is part of the "
                f"likelihood. Found {name!r}. Choose a head that weighs its error."
            )

    def use_closed_form(self, momentum: float) -> None:
        """Estimate sigma from a running mean of the base loss from now on, without a gradient.

        Raises:
            ValueError: If the scale is not apart from the error, so that there is no closed form.
        """
        if self.form is None and not self.learns:
            return
        if self.form is None:
            raise ValueError(
                f"{type(self).__name__} should learn its scale by gradient, as it has no closed "
                "form. Use `estimator='learned'`, or another head."
            )
        self.momentum = momentum
        self._make_log_var_a_buffer()
        count = torch.zeros((), dtype=torch.long, device=self.log_var.device)
        self.register_buffer("num_batches_tracked", count)

    def observe(self, base: BaseLoss) -> None:
        """Update the running mean behind a closed-form sigma; as in batch norm, in training only.

        The mean is not stored: it is the base loss whose optimum ``log_var`` is.
        """
        if self.form is None or self.momentum is None or self.frozen or not self.training:
            return
        with torch.no_grad():
            mean, before = base.mean().float(), self.form.loss_at_optimum(self.log_var)
            running = before + self.momentum * (mean - before)
            running = torch.where(self.num_batches_tracked == 0, mean, running)
            self._move_to(self.form.optimal_log_var(running), where=base.num_valid > 0)
            self.num_batches_tracked.add_(base.num_valid.sum() > 0)

    def reset_parameters(self) -> None:
        """Put sigma back to where it started."""
        with torch.no_grad():
            self.log_var.fill_(2 * math.log(self.init_sigma))
            if self.momentum is not None:
                self.num_batches_tracked.zero_()

    def extra_repr(self) -> str:
        """Return the settings that differ from their defaults, for printing."""
        settings = {"init_sigma": 1.0, "sigma_bounds": (1e-6, 1e6), "num_channels": None}
        return changed_settings(self, settings)

    def _log_var_bounds(self) -> tuple[float, float]:
        low, high = self.sigma_bounds
        return 2 * math.log(low), 2 * math.log(high)

    def _move_to(self, log_var: Tensor, where: Tensor) -> None:
        log_var = log_var.to(self.log_var.dtype).clamp(*self._log_var_bounds())
        # A nan would stay for ever, where nothing but this one loss is lost by leaving it out.
        self.log_var.copy_(torch.where(where & ~log_var.isnan(), log_var, self.log_var))

    def _make_log_var_a_buffer(self, persistent: bool = True) -> None:
        value = self.log_var.detach().clone()
        del self.log_var
        self.register_buffer("log_var", value, persistent=persistent)

    def _for_logging(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        # What the next forward will use: an optimizer may just have stepped out of the bounds.
        with torch.no_grad():
            value = function(self.log_var.clamp(*self._log_var_bounds()))
        return value.squeeze(0) if self.num_channels is None else value

    def _per_channel(self, value: Tensor, ndim: int) -> Tensor:
        # (C,) -> (C, 1, ..., 1), which lines up with axis 1 of a tensor of `ndim` axes.
        return value if self.num_channels is None else value.view(-1, *[1] * (ndim - 2))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "TaskHead":
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            # Not `moved.float()`, which would keep the rounding of the trip through half precision.
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]
        return self

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # A checkpoint serves either estimator. One of a learned sigma holds no count: it counts as
        # a batch seen, or the first one would overwrite what was loaded.
        count, loaded = prefix + "num_batches_tracked", prefix + "log_var" in state_dict
        if self.momentum is None:
            state_dict.pop(count, None)
        elif loaded and count not in state_dict:
            state_dict[count] = torch.ones_like(self.num_batches_tracked)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def changed_settings(module: nn.Module, defaults: dict[str, Any]) -> str:
    """Return ``name=value`` of each attribute that differs from its default, for printing."""
    changed = {
        k: getattr(module, k) for k, default in defaults.items() if getattr(module, k) != default
    }
    return ", ".join(f"{name}={value!r}" for name, value in changed.items())
