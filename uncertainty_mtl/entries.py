"""Joins the heads of a loss into vectors that have one entry for each task or channel."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uncertainty_mtl import forms
from uncertainty_mtl.collectives import Group, num_ranks, sum_over_ranks
from uncertainty_mtl.forms import BaseLoss, Form, PowerForm
from uncertainty_mtl.parameters import CAPTURED, gathered, is_usable, project, write
from uncertainty_mtl.task_head import TaskHead

MOST_PATTERNS = 256
"""The largest number of patterns of missing labels whose constants are kept."""


class Step(NamedTuple):
    """The losses of a training step, and the form and constant that weigh each of them.

    Attributes:
        losses: Mean base losses; 0 without labels.
        num_valid: The number of valid elements in each mean.
        form: The form of each entry, times the entry's share of its task's valid elements.
        constant: The constant of each entry, times that share.
        blank: Added to the reported errors, so that tasks without labels show nan.
    """

    losses: Tensor
    num_valid: Tensor
    form: Form
    constant: Tensor | None
    blank: Tensor


class Entries:
    """The heads of a loss, and the constants that all steps on one device share.

    A task contributes one entry, or C entries if its head has a sigma per channel. Two tasks that
    share a head have an entry each, always with the same sigma.

    Args:
        heads: The heads by task.
        used: The form that the loss uses for each of them.
        priorities: Factors on whole tasks.
        like: A tensor of the device and dtype of the losses.
    """

    def __init__(
        self,
        heads: Mapping[str, TaskHead],
        used: Sequence[Form],
        priorities: Mapping[str, float],
        like: Tensor,
    ) -> None:
        self.tasks, self.heads = list(heads), list(heads.values())
        self.settings = settings_of(heads, priorities)
        self.parameters = [head.log_var for head in self.heads]
        self.sizes = [head.num_channels or 1 for head in self.heads]
        self.has_channels = any(head.num_channels is not None for head in self.heads)
        self._options: Any = {"dtype": like.dtype, "device": like.device}
        self._patterns: dict[tuple[float, ...], Step] = {}
        self._never_missing: dict[tuple[bool, ...], Tensor] = {}

        powers = [each if isinstance(each, PowerForm) else forms.SYMMETRIC for each in used]
        columns = zip(*((p.amplitude, p.power, p.slope) for p in powers), strict=True)
        self.form: Form = PowerForm(*map(self._vector, columns))
        if not all(isinstance(each, PowerForm) for each in used):
            self.form = forms.LIEBEL_KOERNER  # then every head has this form
        # A fixed weight has no likelihood: neither a sigma nor a constant.
        has_form = [head.form is not None for head in self.heads]
        is_fixed = [f and p.power == 0 for f, p in zip(has_form, powers, strict=True)]
        constants = [0.0 if f else h.constant for f, h in zip(is_fixed, self.heads, strict=True)]
        self._constant = self._vector(constants) if any(constants) else None
        self.priority = self._vector([priorities.get(task, 1.0) for task in heads])
        bounds = [head.log_var_bounds() for head in self.heads]
        self.low, self.high = (self._vector(each) for each in zip(*bounds, strict=True))
        # The head itself keeps a scale inside the likelihood within its bounds.
        outside = [b for b, h in zip(bounds, self.heads, strict=True) if h.form is not None]
        # A single bound is twice as fast as a list of equal ones.
        self._bounds = [list(e) if len(set(e)) > 1 else e[0] for e in zip(*outside, strict=True)]
        no_sigma = [f or p is None for f, p in zip(is_fixed, self.parameters, strict=True)]
        self._has_no_sigma = self._vector(no_sigma) > 0
        # There is no closed form for a scale inside the likelihood.
        self.can_start = self._vector(has_form) > 0
        learns_inside = [h.form is None and h.log_var is not None for h in self.heads]
        self._learns_inside = self._vector(learns_inside) > 0
        self.is_from_data = self._vector([head.init_sigma is None for head in self.heads]) > 0
        owners = [self.heads.index(head) for head in self.heads]
        owner = self._vector(owners)
        self._same_head = (owner.unsqueeze(0) == owner.unsqueeze(1)).to(like.dtype)
        self._shares_heads = len(set(owners)) < len(owners)

    def is_there(
        self, summed: Tensor, counts: Sequence[Any], zero_is_missing: Collection[str]
    ) -> Tensor:
        """Return which entries have a loss; a reduced loss of 0 may count as missing."""
        may_be_missing = tuple(
            task in zero_is_missing and isinstance(count, float)
            for task, count in zip(self.tasks, counts, strict=True)
        )
        if torch.compiler.is_compiling():
            return (summed.detach() != 0) | (self._vector(may_be_missing) == 0)
        if may_be_missing not in self._never_missing:
            if len(self._never_missing) == MOST_PATTERNS:
                self._never_missing.clear()
            with torch.inference_mode(False):
                self._never_missing[may_be_missing] = self._vector(may_be_missing) == 0
        return (summed.detach() != 0) | self._never_missing[may_be_missing]

    def step(
        self,
        summed: Tensor,
        counts: Sequence[Any],
        group: Group = False,
        is_there: Tensor | None = None,
    ) -> Step:
        """Return the step's mean losses and how to weigh them.

        Args:
            summed: Errors summed over the valid elements.
            counts: Valid elements by task; 1.0 for a reduced loss, 0.0 for a task without labels.
            group: The processes whose elements are joined.
            is_there: Bool: which entries have a loss; all of them by default.
        """
        if num_ranks(group) > 1 or not all(isinstance(count, float) for count in counts):
            num_valid = [
                count.reshape(-1) if isinstance(count, Tensor) else self._full(size, count)
                for count, size in zip(counts, self.sizes, strict=True)
            ]
            joined = torch.cat(num_valid).to(summed.dtype)
            base = BaseLoss(summed, joined if is_there is None else joined * is_there)
            base = sum_over_ranks(base, group)
            return self._step(base.mean(), base.num_valid)
        # Reduced losses already are means. Their constants are kept, because copying them to a GPU
        # in each step would stall the host.
        if torch.compiler.is_compiling():
            num_valid_of_call = self._vector(counts)
            if is_there is not None:
                num_valid_of_call = num_valid_of_call * is_there
            return self._step(summed, num_valid_of_call)
        key = tuple(counts)
        if key not in self._patterns:
            if len(self._patterns) == MOST_PATTERNS:
                self._patterns.clear()
            with torch.inference_mode(False):  # training may use the constants of an evaluation
                num_valid_of_key = self._vector(counts)
                self._patterns[key] = self._step(num_valid_of_key, num_valid_of_key)
        step = self._patterns[key]
        if is_there is not None:
            return self._step(summed, step.num_valid * is_there)
        return step._replace(losses=summed)

    def split(self, vector: Tensor) -> Sequence[Tensor]:
        """Return each task's part, ``()`` or ``(C,)``, of a vector that has no graph."""
        if not self.has_channels:
            return vector.unbind()
        parts = zip(torch.split(vector, self.sizes), self.heads, strict=True)
        return [part.squeeze(0) if head.num_channels is None else part for part, head in parts]

    def summed(self, terms: Tensor) -> Sequence[Tensor]:
        """Return the sum of each task's terms."""
        if self.has_channels:
            return [part.sum() for part in torch.split(terms, self.sizes)]
        # Copies: the views that `unbind` returns could not be changed in place.
        try:
            copies: Any = torch.unbind_copy(terms)  # type: ignore[func-returns-value]
        except RuntimeError:  # `vmap` of torch 2.4 has no such operation.
            copies = [term.clone() for term in terms.unbind()]
        return list(copies)

    def project(self) -> None:
        """Put parameters back within their bounds, in place, if an optimizer moved them outside."""
        if self._bounds:
            pairs = zip(self.parameters, self.heads, strict=True)
            project([p for p, head in pairs if head.form is not None], *self._bounds)

    def log_vars(self) -> Tensor:
        """Return all log-variances, connected to the graph; those of frozen heads are detached."""
        triples = zip(self.parameters, self.heads, self.sizes, strict=True)
        return torch.cat([self._log_var(p, head.frozen, size) for p, head, size in triples])

    def counts(self) -> Tensor:
        """Return how many batches have set each entry."""
        pairs = [(h.num_batches_tracked, n) for h, n in zip(self.heads, self.sizes, strict=True)]
        return torch.cat([self._full(n, 0.0) if c is None else c.view(-1) for c, n in pairs])

    def write(
        self, log_vars: Tensor, counts: Tensor | None = None, *, inside: bool = False
    ) -> None:
        """Set the log-variances, and the counts, of all heads that are not frozen.

        Args:
            log_vars: The new values.
            counts: How many batches have set them; ``None`` does not change the counts.
            inside: Whether to set heads whose scale is inside the likelihood, too. Within a step
                they have already used their parameter, and autograd may need its old value.

        Raises:
            RuntimeError: Within a transform of ``torch.func``, before anything was written.
        """
        if any(type(p) is Tensor for p in self.parameters):  # arguments of `functional_call`
            raise RuntimeError(CAPTURED)
        parts = zip(self.parameters, self.heads, torch.split(log_vars, self.sizes), strict=True)
        pairs = [
            (p, part)
            for p, head, part in parts
            if p is not None and not head.frozen and (inside or head.form is not None)
        ]
        if counts is not None:
            pairs += [
                (head.num_batches_tracked, part.view_as(head.num_batches_tracked))
                for head, part in zip(self.heads, torch.split(counts, self.sizes), strict=True)
                if head.num_batches_tracked is not None and not head.frozen
            ]
        write(*pairs)

    def unless_frozen(self, where: Tensor) -> Tensor:
        """Return where a condition holds and the head is not frozen."""
        if not any(head.frozen for head in self.heads):
            return where
        pairs = zip(self.sizes, self.heads, strict=True)
        return where & (torch.cat([self._full(n, head.frozen) for n, head in pairs]) == 0)

    def usable_means(self, step: Step, group: Group) -> tuple[Tensor, Tensor]:
        """Return the mean base losses that sigmas follow, detached, and which entries have one.

        They are joined over the processes of a group. Tasks that share a head all get their mean,
        weighted by priority: the sigma that follows from it minimises the sum of their terms.
        """
        means = step.losses.detach()
        usable = is_usable(means) & (step.num_valid > 0) & self.can_start
        num_valid = torch.where(usable, step.num_valid, 0.0)
        base = BaseLoss(torch.where(usable, means, 0.0) * num_valid, num_valid)
        base = sum_over_ranks(base, group)
        if self._shares_heads:
            weights = (base.num_valid > 0) * self.priority
            # Not a matrix product, which autocast would compute in half precision.
            both = torch.stack([base.mean() * weights, weights]).unsqueeze(1)
            base = BaseLoss(*(self._same_head * both).sum(2).unbind())
        return base.mean(), base.num_valid > 0

    def sigmas(self, log_vars: Tensor) -> Tensor:
        """Return the sigmas; nan for a head that has none."""
        return torch.exp(0.5 * log_vars).masked_fill(self._has_no_sigma, torch.nan)

    def weights(self, log_vars: Tensor) -> Tensor:
        """Return the factors on the base losses; for an exact softmax, on the logits."""
        weights = self.form.weight(log_vars)
        weights = torch.where(self._learns_inside, torch.exp(-log_vars), weights)
        return weights * self.priority

    def _step(self, losses: Tensor, num_valid: Tensor) -> Step:
        if self.has_channels:
            parts = torch.split(num_valid, self.sizes)
            shares = torch.cat([forms.shares_of(part) for part in parts]) * self.priority
        else:
            shares = (num_valid > 0) * self.priority
        blank = torch.zeros_like(num_valid).masked_fill(num_valid == 0, torch.nan)
        constant = None if self._constant is None else self._constant * shares
        return Step(losses, num_valid, self.form.times(shares), constant, blank)

    def _log_var(self, parameter: Tensor | None, frozen: bool, size: int) -> Tensor:
        if parameter is None:
            return self._full(size, 0.0)
        return gathered(parameter.detach() if frozen else parameter)

    def _full(self, size: int, value: float) -> Tensor:
        return torch.full((size,), value, **self._options)

    def _vector(self, values: Sequence[Any]) -> Tensor:
        repeated = [v for v, n in zip(values, self.sizes, strict=True) for _ in range(n)]
        return torch.tensor(repeated, **self._options)


def settings_of(heads: Mapping[str, TaskHead], priorities: Mapping[str, float]) -> list[Any]:
    """Return the settings that may change after a loss was built."""
    found: list[Any] = [(h, h.sigma_bounds, h.num_resets, h.frozen) for h in heads.values()]
    return [*found, *priorities.items()]
