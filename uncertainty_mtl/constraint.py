r"""Task weights that sum to one, learned jointly."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uncertainty_mtl.forms import PowerForm

SMALLEST_SHARE = 1e-12


class UnitSum(nn.Module):
    r"""Keeps the weights of K tasks on the simplex: :math:`\sum_k w_k = 1` at every step.

    The objective is unchanged, :math:`\sum_k w_k L_k - c_k \log w_k`. On the simplex its optimum is

    .. math:: w_k = \frac{c_k}{L_k + \lambda},

    with the one :math:`\lambda` that makes them sum to 1; it is convex in :math:`w`. The step on
    the network no longer grows as the losses shrink, but the invariance to units is lost: a
    task measured in centimetres takes a smaller share than the same task in metres.

    A task that no optimizer moved since the last step (unlabelled, or frozen) keeps its share; the
    others divide the rest. ``last_log_weights`` remembers the shares, to tell who moved.

    Args:
        forms: The tasks' forms.
    """

    last_log_weights: Tensor

    def __init__(self, forms: Sequence[PowerForm]) -> None:
        super().__init__()
        self.forms = tuple(forms)
        self.register_buffer("last_log_weights", torch.full((len(self.forms),), float("nan")))

    def log_weights(self, log_vars: Sequence[Tensor]) -> Tensor:
        """Return the log-weights of scales of shape (1,), not normalised; shape (K,)."""
        return torch.cat(
            [form.log_weight(log_var) for form, log_var in zip(self.forms, log_vars, strict=True)]
        )

    def project(self, log_vars: Sequence[Tensor]) -> list[Tensor]:
        """Return the scales, detached, whose weights sum to 1, and that are nearest by share."""
        with torch.no_grad():
            log_weights = self.log_weights(log_vars)
            kept = log_weights == self.last_log_weights
            # In float64: the rest beside a large share is the small difference of two numbers.
            weights = log_weights.double().clamp(-300, 300).exp()
            rest = 1 - torch.where(kept, weights, 0.0).sum()
            moved = torch.where(kept, 0.0, weights).sum()
            # If all are kept, or leave nothing to the others, everyone is scaled alike.
            scale = torch.where(kept, 1.0, rest / moved)
            usable = (moved > 0) & (rest > 1e-6)
            scale = torch.where(usable, scale, 1 / weights.sum())
            # No share falls so low that it could not rise again within some hundred steps.
            shares = (weights * scale).clamp(min=SMALLEST_SHARE)
            return self._log_vars((shares / shares.sum()).log().to(log_weights.dtype))

    def remember(self, log_vars: Sequence[Tensor]) -> None:
        """Store the shares that the coming optimizer step starts from."""
        with torch.no_grad():
            self.last_log_weights.copy_(self.log_weights(log_vars))

    def with_joint_gradient(self, log_vars: Sequence[Tensor], labelled: Tensor) -> list[Tensor]:
        """Return the same scales, whose gradient is that of weights normalised among the labelled.

        Args:
            log_vars: The scales, whose weights sum to 1.
            labelled: Which tasks have labels in this step, bool, shape (K,).
        """
        log_weights = self.log_weights(log_vars)
        # Minus 1e4 is a weight of 0 in any dtype; minus infinity would make the gradient nan.
        normaliser = torch.where(labelled, log_weights, -1e4).logsumexp(0)
        # The value of the normaliser is left out: only the labelled tasks' shares are to move.
        return self._log_vars(log_weights - (normaliser - normaliser.detach()))

    def optimal_log_vars(self, losses: Tensor) -> list[Tensor]:
        r"""Return the scales at the optimum for fixed mean base losses, shape (K,).

        Newton's method on :math:`1/\sum_k w_k(\lambda) - 1`, which is concave: from the largest
        :math:`\lambda` that leaves no weight above 1 it approaches the root from one side.
        """
        with torch.no_grad():
            c = torch.tensor([form.weighted_optimum for form in self.forms], device=losses.device)
            c, losses = c.double(), losses.double()
            multiplier = (c - losses).max()
            for _ in range(20):
                weights = c / (losses + multiplier)
                total, slope = weights.sum(), (weights.square() / c).sum()
                multiplier = multiplier + (total.square() - total) / slope
            return self._log_vars((c / (losses + multiplier)).log().float())

    def _log_vars(self, log_weights: Tensor) -> list[Tensor]:
        pairs = zip(self.forms, torch.split(log_weights, 1), strict=True)
        return [form.log_var_of(log_weight) for form, log_weight in pairs]
