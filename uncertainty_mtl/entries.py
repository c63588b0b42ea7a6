"""The heads of a loss as vectors, with one entry for every task and channel."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

from uncertainty_mtl import forms
from uncertainty_mtl._checks import check_same_device
from uncertainty_mtl.collectives import Group, num_ranks, sum_over_ranks
from uncertainty_mtl.forms import BaseLoss, Form, PowerForm
from uncertainty_mtl.task_head import TaskHead, is_usable, project, read, write

Result = TypeVar("Result")

CAPTURED = (
    "A training step that sets sigmas from its losses should run outside of the transforms of "
    "`torch.func`. Found one within, where a tensor that the function has not been given cannot be "
    "written. Take an ordinary step first or call `loss_fn.initialize_from`, after which learned "
    "sigmas work here; or call `loss_fn.eval()`. Closed form and constraints set sigmas in every "
    "training step."
)


class Measured(NamedTuple):
    """What was measured in a step, with one entry for every task and channel.

    Attributes:
        losses: Mean base losses; 0 where there are no labels.
        num_valid: The valid elements that each mean runs over.
        form: How the losses are weighed, times the share of each entry in its task.
        constant: What the forms drop, times that share.
        blank: 0, or nan where there are no labels.
    """

    losses: Tensor
    num_valid: Tensor
    form: Form
    constant: Tensor
    blank: Tensor


class Entries:
    """The heads of a loss, and what stays the same from step to step, on one device.

    A task contributes one entry, or C entries if its head has a sigma per channel. Two tasks that
    share a head have an entry each; both always hold the same sigma.

    Args:
        heads: The heads by task.
        form: Name of the form that the loss uses.
        priorities: Factors on whole tasks.
        like: A tensor of the device and dtype of the losses.
    """

    def __init__(
        self,
        heads: Mapping[str, TaskHead],
        form: str,
        priorities: Mapping[str, float],
        like: Tensor,
    ) -> None:
        self.tasks, self.heads = list(heads), list(heads.values())
        self.settings = settings_of(heads, priorities)
        self.sizes = [head.num_channels or 1 for head in self.heads]
        self.has_channels = any(head.num_channels is not None for head in self.heads)
        self.like = like.new_zeros(())
        self._kept: dict[tuple[Any, ...], Any] = {}

        named = [
            forms.SCALE_INSIDE if head.form is None else forms.named_form(form, head.form)
            for head in self.heads
        ]
        numbers = [
            (form.amplitude, form.power, form.slope) if isinstance(form, PowerForm) else (1, 1, 1)
            for form in named
        ]
        self.amplitude, self.power, self.slope = map(self._vector, zip(*numbers, strict=True))
        self.form: Form = PowerForm(self.amplitude, self.power, self.slope)
        if forms.LIEBEL_KOERNER in named:  # which is then the form of all
            self.form = forms.LIEBEL_KOERNER
        self.constant = self._vector([head.constant for head in self.heads])
        self.priority = self._vector([priorities.get(task, 1.0) for task in heads])
        self.parameters = [head.log_var for head in self.heads]
        bounds = [head.log_var_bounds() for head in self.heads]
        self.low, self.high = (self._vector(each) for each in zip(*bounds, strict=True))
        learned = [pair for head, pair in zip(self.heads, bounds, strict=True) if head.has_sigma]
        # One number, if all have the same, takes half of the time of a list.
        self._bounds = [
            each[0] if len(set(each)) == 1 else list(each) for each in zip(*learned, strict=True)
        ]
        self.has_sigma = self._vector([head.has_sigma for head in self.heads]) > 0
        # A scale inside of the likelihood has no closed form that could set it.
        self.can_start = self._vector([head.form is not None for head in self.heads]) > 0
        self.is_from_data = self._vector([head.init_sigma is None for head in self.heads]) > 0
        identities = [id(head) for head in self.heads]
        self.shares_heads = len(set(identities)) < len(identities)
        owner = self._vector([identities.index(identity) for identity in identities])
        self._same_head = (owner.unsqueeze(0) == owner.unsqueeze(1)).to(like.dtype)

    def measured(
        self, summed: Tensor, counts: Sequence[Tensor | float], group: Group = False
    ) -> Measured:
        """Return the step's losses and how they are to be weighed.

        Args:
            summed: Errors summed over the valid elements.
            counts: Valid elements by task; 1.0 for a reduced loss, 0.0 for a task without labels.
            group: The processes whose elements are joined.
        """
        constants = [count for count in counts if isinstance(count, float)]
        if len(constants) == len(counts) and num_ranks(group) == 1:
            # No mean to take, and nothing that changes from step to step.
            return Measured(summed, *self._cached(self._weighed, constants))
        parts = zip(counts, self.sizes, strict=True)
        num_valid = torch.cat(
            [
                c.reshape(-1).to(self.like.dtype) if isinstance(c, Tensor) else self._full(n, c)
                for c, n in parts
            ]
        )
        base = sum_over_ranks(BaseLoss(summed, num_valid), group)
        return Measured(base.mean(), *self._weighed(base.num_valid))

    def _weighed(self, num_valid: Tensor) -> tuple[Tensor, Form, Tensor, Tensor]:
        if self.has_channels:
            parts = torch.split(num_valid, self.sizes)
            shares = torch.cat([forms.shares_of(part) for part in parts])
        else:
            shares = (num_valid > 0).to(num_valid.dtype)
        shares = shares * self.priority
        blank = torch.zeros_like(num_valid).masked_fill(num_valid == 0, torch.nan)
        return num_valid, self.form.times(shares), self.constant * shares, blank

    def _cached(self, function: Callable[[Tensor], Result], values: Sequence[float]) -> Result:
        """Return a function of a vector with a value per task, kept: a GPU waits for copies."""
        if torch.compiler.is_compiling():
            return function(self._vector(values))
        key = function.__name__, *values
        if key not in self._kept:
            self._kept[key] = function(self._vector(values))
        found: Result = self._kept[key]
        return found

    def split(self, vector: Tensor) -> Sequence[Tensor]:
        """Return each task's part of a vector without a graph, ``()`` or ``(C,)``."""
        if not self.has_channels:
            return vector.unbind()
        pairs = zip(torch.split(vector, self.sizes), self.heads, strict=True)
        return [part.squeeze(0) if h.num_channels is None else part for part, h in pairs]

    def summed(self, terms: Tensor) -> Sequence[Tensor]:
        """Return the sum of each task's terms."""
        if not self.has_channels:
            # One by one: what `unbind` returns could not be changed in place.
            return [terms[i] for i in range(len(self.heads))]
        return [part.sum() for part in torch.split(terms, self.sizes)]

    def at_hand(self) -> "Entries":
        """Return the same with the parameters that the heads have in this call.

        Raises:
            ValueError: If they are on another device.
        """
        self.parameters = [head.log_var for head in self.heads]
        first = next((p for p in self.parameters if p is not None), self.like)
        check_same_device("The losses", self.like, first)
        return self

    def project(self) -> None:
        """Put parameters that an optimizer moved out of their bounds back, in place."""
        if self._bounds:
            project([p for p in self.parameters if p is not None], *self._bounds)

    def log_vars(self) -> Tensor:
        """Return all log-variances in the graph, those of frozen heads detached."""
        found = [
            self._full(1, 0.0) if p is None else (p.detach() if head.frozen else p)
            for p, head in zip(self.parameters, self.heads, strict=True)
        ]
        return torch.cat(found)

    def stored(self) -> Tensor:
        """Return all log-variances as they are, detached; sharded ones are gathered."""
        found = [self._full(1, 0.0) if p is None else read(p) for p in self.parameters]
        return torch.cat(found).to(self.like.dtype)

    def counts(self) -> Tensor:
        """Return how many batches have set each entry."""
        found = [h.num_batches_tracked for h in self.heads]
        return torch.cat([self._full(1, 0.0) if c is None else c.view(-1) for c in found])

    def write(self, log_vars: Tensor, counts: Tensor | None = None) -> None:
        """Set the log-variances, and the counts, of all heads that are not frozen.

        Raises:
            RuntimeError: Within a transform of ``torch.func``, before anything was written.
        """
        parts = torch.split(log_vars, self.sizes)
        pairs = [
            (parameter, part)
            for parameter, head, part in zip(self.parameters, self.heads, parts, strict=True)
            if parameter is not None and not head.frozen
        ]
        try:
            for log_var, part in pairs:
                write(log_var, part)
        except RuntimeError as error:
            raise RuntimeError(CAPTURED) from error
        if counts is None:
            return
        for head, part in zip(self.heads, torch.split(counts, self.sizes), strict=True):
            if head.num_batches_tracked is not None and not head.frozen:
                head.num_batches_tracked.copy_(part.view_as(head.num_batches_tracked))

    def sigmas(self, log_vars: Tensor) -> Tensor:
        """Return the sigmas; nan for a head that has none."""
        return torch.where(self.has_sigma, torch.exp(0.5 * log_vars), torch.nan)

    def weights(self, log_vars: Tensor) -> Tensor:
        """Return the factors on the base losses; on the logits, where the error has none."""
        weights = torch.where(self.can_start, self.form.weight(log_vars), torch.exp(-log_vars))
        return weights * self.priority

    def not_frozen(self) -> Tensor:
        """Return where a sigma may be estimated, bool."""
        return self._cached(_is_positive, [float(not head.frozen) for head in self.heads])

    def usable_means(self, step: Measured, group: Group) -> tuple[Tensor, Tensor]:
        """Return the mean base losses that sigmas follow, detached, and where there are any.

        They are joined over the processes of a group, and averaged over tasks that share a head:
        the sum of such tasks' terms is least at the plain average of their means.
        """
        means = step.losses.detach()
        usable = is_usable(means) & (step.num_valid > 0) & self.can_start
        num_valid = torch.where(usable, step.num_valid, 0.0)
        base = sum_over_ranks(
            BaseLoss(torch.where(usable, means, 0.0) * num_valid, num_valid), group
        )
        means, usable = base.mean(), base.num_valid > 0
        if self.shares_heads:
            weights = usable.to(means.dtype)
            base = BaseLoss(self._same_head @ (means * weights), self._same_head @ weights)
            means, usable = base.mean(), base.num_valid > 0
        return means, usable

    def _full(self, size: int, value: float) -> Tensor:
        return torch.full((size,), value, dtype=self.like.dtype, device=self.like.device)

    def _vector(self, values: Sequence[float]) -> Tensor:
        repeated = [v for v, n in zip(values, self.sizes, strict=True) for _ in range(n)]
        return torch.tensor(repeated, dtype=self.like.dtype, device=self.like.device)


def _is_positive(vector: Tensor) -> Tensor:
    return vector > 0


def settings_of(heads: Mapping[str, TaskHead], priorities: Mapping[str, float]) -> list[Any]:
    """Return what :class:`Entries` are made of, to tell whether it has changed."""
    found: list[Any] = [(h, h.form, h.sigma_bounds, h.constant) for h in heads.values()]
    return [*found, *priorities.items()]
