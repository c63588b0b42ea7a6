"""The ways to weigh that are compared; each makes one number of the losses of a step."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torchjd.scalarization import DWA, IMTLL, UW, Random

from uncertainty_mtl import UncertaintyWeightedLoss

Losses = Mapping[str, Tensor | None]
"""By task; None for a task that has no label in the batch."""

EQUAL, NLL, SYMMETRIC = "equal", "learned, nll", "learned, symmetric"
CLOSED_NLL, CLOSED_SYMMETRIC = "closed form, nll", "closed form, symmetric"
GRID, TEMPERATURES = "best of the fixed weights", "best of UW-SO's temperatures"


class Weigher(Protocol):
    """What a way to weigh is to the training loop."""

    def __call__(self, losses: Losses) -> Tensor:
        """Return the total loss of a step, which the training minimises."""

    def groups(self) -> list[dict[str, Any]]:
        """Return parameter groups with what the way to weigh learns; none if it learns nothing."""

    def end_epoch(self) -> None:
        """Note that all training data have been seen once more."""


class Ours:
    """This library, given the losses as they are."""

    def __init__(self, likelihoods: Mapping[str, str], **options: Any) -> None:
        self.loss_fn = UncertaintyWeightedLoss(dict(likelihoods), **options)

    def __call__(self, losses: Losses) -> Tensor:
        """Return the weighted sum."""
        return self.loss_fn(dict(losses)).total

    def groups(self) -> list[dict[str, Any]]:
        """Return the sigmas, at their own default rate."""
        return self.loss_fn.param_groups()

    def end_epoch(self) -> None:
        """Do nothing: only the losses count."""


class Peer:
    """A scalarizer of TorchJD. It takes no missing loss: 0 stands for one, as users write it."""

    def __init__(self, scalarizer: nn.Module) -> None:
        self.scalarizer = scalarizer

    def __call__(self, losses: Losses) -> Tensor:
        """Return the weighted sum."""
        present = next(loss for loss in losses.values() if loss is not None)
        zero = torch.zeros_like(present)
        values = [zero if loss is None else loss for loss in losses.values()]
        return self.scalarizer(torch.stack(values))

    def groups(self) -> list[dict[str, Any]]:
        """Return what it learns, at the network's rate, as its documentation shows."""
        parameters = list(self.scalarizer.parameters())
        return [{"params": parameters, "weight_decay": 0.0}] if parameters else []

    def end_epoch(self) -> None:
        """Let DWA compare this epoch's losses with the last one's."""
        if isinstance(self.scalarizer, DWA):
            self.scalarizer.step()


def fixed(likelihoods: Mapping[str, str], weights: Sequence[float]) -> Ours:
    """Return weights that stay as they are."""
    by_task = dict(zip(likelihoods, weights, strict=True))
    return Ours(likelihoods, estimator="fixed", weights=by_task)


class Way(NamedTuple):
    """A way to weigh."""

    name: str
    make: Callable[[Mapping[str, str]], Weigher]
    """Takes the tasks with their likelihoods."""
    one_of: str = ""
    """The choice that it belongs to: the best of them on validation data is reported."""


def ways(fixed_weights: Sequence[Sequence[float]]) -> list[Way]:
    """Return all of them, with equal and with the given weights among the fixed ones."""
    found = [
        Way(EQUAL, lambda tasks: fixed(tasks, [1.0] * len(tasks)), GRID),
        Way("random weights", lambda _: Peer(Random())),
        _ours(NLL),
        _ours(SYMMETRIC, form="symmetric"),
        _ours(CLOSED_NLL, estimator="closed_form"),
        _ours(CLOSED_SYMMETRIC, estimator="closed_form", form="symmetric"),
        _ours("unit sum, nll", constraint="unit_sum"),
        _ours("unit sum, symmetric", constraint="unit_sum", form="symmetric"),
        _ours("UW-O", estimator="closed_form", form="symmetric", momentum=1.0),
        _ours("Liebel and Koerner", form="liebel_koerner"),
        Way("TorchJD's UW", lambda tasks: Peer(UW(len(tasks)))),
        Way("TorchJD's IMTL-L", lambda tasks: Peer(IMTLL(len(tasks)))),
        Way("TorchJD's DWA", lambda _: Peer(DWA())),
    ]
    for temperature in (1.0, 5.0, 20.0, 50.0):
        name = f"UW-SO, T = {temperature:g}"
        way = _ours(
            name,
            estimator="closed_form",
            momentum=1.0,
            constraint="softmax",
            temperature=temperature,
        )
        found.append(way._replace(one_of=TEMPERATURES))
    for weights in fixed_weights:
        name = "fixed " + ", ".join(f"{weight:g}" for weight in weights)
        found.append(Way(name, partial(fixed, weights=weights), GRID))
    return found


def drawn_weights(num_tasks: int, count: int) -> list[list[float]]:
    """Return weights from 0.01 to 100, by chance: a search that needs no idea of the units."""
    draws = np.random.default_rng(0).uniform(math.log(0.01), math.log(100.0), (count, num_tasks))
    return [[float(f"{weight:.2g}") for weight in draw] for draw in np.exp(draws)]


def _ours(name: str, **options: Any) -> Way:
    return Way(name, lambda tasks: Ours(tasks, **options))
