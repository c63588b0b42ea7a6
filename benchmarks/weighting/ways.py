"""The ways to weigh that are compared. Each combines the losses of a step into one number."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchjd.scalarization import DWA, IMTLL, UW, Random

from uncertainty_mtl import UncertaintyWeightedLoss

Losses = Mapping[str, Tensor | None]
"""Losses by task; None for a task that has no label in the batch."""

EQUAL, NLL, SYMMETRIC = "equal", "learned, nll", "learned, symmetric"
CLOSED_NLL, CLOSED_SYMMETRIC = "closed form, nll", "closed form, symmetric"
GRID, TEMPERATURES = "best of the fixed weights", "best of UW-SO's temperatures"

LONG_WAYS = (EQUAL, NLL, SYMMETRIC, CLOSED_SYMMETRIC)
"""What is also trained with the preset `demo`, which takes three times as long."""


@dataclass(frozen=True)
class Weigher:
    """What weighs the losses in one training."""

    total: Callable[[Losses], Tensor]
    """Returns the number that a step minimises."""
    groups: Sequence[dict[str, Any]] = ()
    """Parameter groups with what it learns."""
    end_epoch: Callable[[], object] = lambda: None
    """Called when all training data have been seen once more."""


def ours(likelihoods: Mapping[str, str], **options: Any) -> Weigher:
    """Return a weigher of this library, with the default learning rate for its sigmas."""
    loss_fn = UncertaintyWeightedLoss(dict(likelihoods), **options)
    return Weigher(lambda losses: loss_fn(dict(losses)).total, loss_fn.param_groups())


def fixed(likelihoods: Mapping[str, str], weights: Sequence[float]) -> Weigher:
    """Return weights that stay as they are."""
    by_task = dict(zip(likelihoods, weights, strict=True))
    return ours(likelihoods, estimator="fixed", weights=by_task)


def peer(scalarizer: nn.Module) -> Weigher:
    """Return a scalarizer of TorchJD, which learns at the network's rate as its manual shows."""

    def total(losses: Losses) -> Tensor:
        # It takes no None: users give 0 for a missing loss.
        zero = torch.zeros_like(next(loss for loss in losses.values() if loss is not None))
        return scalarizer(torch.stack([zero if x is None else x for x in losses.values()]))

    parameters = list(scalarizer.parameters())
    groups = [{"params": parameters, "weight_decay": 0.0}] if parameters else []
    # DWA compares the losses of an epoch with those of the last one.
    return Weigher(total, groups, scalarizer.step if isinstance(scalarizer, DWA) else lambda: None)


class Way(NamedTuple):
    """A way to weigh, which makes a new weigher for every training."""

    name: str
    make: Callable[[Mapping[str, str]], Weigher]
    """Takes the likelihoods by task."""
    one_of: str = ""
    """The choice that it belongs to; the best on validation data is reported under this name."""


def ways(fixed_weights: Sequence[Sequence[float]]) -> list[Way]:
    """Return all ways to weigh. The fixed weights are equal ones and those that are given."""
    closed, symmetric = {"estimator": "closed_form"}, {"form": "symmetric"}
    unit_sum = {"constraint": "unit_sum"}
    uw_so = {**closed, "momentum": 1.0, "constraint": "softmax"}
    return [
        Way(EQUAL, lambda tasks: fixed(tasks, [1.0] * len(tasks)), GRID),
        Way("random weights", lambda _: peer(Random())),
        Way(NLL, ours),
        Way(SYMMETRIC, partial(ours, **symmetric)),
        Way(CLOSED_NLL, partial(ours, **closed)),
        Way(CLOSED_SYMMETRIC, partial(ours, **closed, **symmetric)),
        Way("unit sum, nll", partial(ours, **unit_sum)),
        Way("unit sum, symmetric", partial(ours, **unit_sum, **symmetric)),
        Way("UW-O", partial(ours, **closed, **symmetric, momentum=1.0)),
        Way("Liebel and Koerner", partial(ours, form="liebel_koerner")),
        Way("TorchJD's UW", lambda tasks: peer(UW(len(tasks)))),
        Way("TorchJD's IMTL-L", lambda tasks: peer(IMTLL(len(tasks)))),
        Way("TorchJD's DWA", lambda _: peer(DWA())),
        *(
            Way(f"UW-SO, T = {t:g}", partial(ours, **uw_so, temperature=t), TEMPERATURES)
            for t in (1.0, 5.0, 20.0, 50.0)
        ),
        *(
            Way("fixed " + ", ".join(map("{:g}".format, w)), partial(fixed, weights=w), GRID)
            for w in fixed_weights
        ),
    ]


def drawn_weights(num_tasks: int, count: int) -> list[list[float]]:
    """Return random weights from 0.01 to 100: a search that knows nothing of the units."""
    draws = np.random.default_rng(0).uniform(math.log(0.01), math.log(100.0), (count, num_tasks))
    return [[float(f"{weight:.2g}") for weight in draw] for draw in np.exp(draws)]
