"""One training of one problem with one way to weigh: the same loop for all of them."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.weighting.ways import Losses, Weigher

Errors = Mapping[str, float]
"""Test errors by name, each above 0, lower is better."""


class Session(Protocol):
    """One training of a problem: the data and the initial network of a seed."""

    model: nn.Module

    def losses(self) -> Iterator[Losses]:
        """Yield the losses of each training step, from batches in the seed's order."""

    def errors(self, split: str) -> Errors:
        """Return the errors on `validation` or `test` data."""


class Problem(Protocol):
    """A problem: its tasks, and how long and how fast a network learns them."""

    name: str
    likelihoods: Mapping[str, str]
    """The likelihood of each task."""
    steps: int
    epoch: int
    """Steps in which all training data are seen once."""
    learning_rate: float

    def start(self, seed: int) -> Session:
        """Return a training that is about to start."""


@dataclass(frozen=True)
class Outcome:
    """What one training ended with."""

    validation: float
    """The score on validation data; infinite if the training diverged."""
    errors: dict[str, float]
    """The errors on the test data."""
    seconds: float
    """Processor time of the training steps."""

    @property
    def score(self) -> float:
        """The geometric mean of the errors, so that no task's units matter."""
        return geometric_mean(list(self.errors.values()))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean, or infinity if a value is not finite."""
    if not all(map(math.isfinite, values)):
        return math.inf
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def train(problem: Problem, weigher: Weigher, seed: int) -> Outcome:
    """Train once with AdamW. The network's learning rate falls to 0; that of the weights stays."""
    torch.manual_seed(seed)
    session = problem.start(seed)
    groups = [{"params": session.model.parameters()}, *weigher.groups]
    optimizer = AdamW(groups, lr=problem.learning_rate, weight_decay=1e-4)
    rates = [lambda step: 1 - step / problem.steps, *[lambda _: 1.0] * len(weigher.groups)]
    schedule = LambdaLR(optimizer, rates)
    start = time.process_time()
    for step, losses in enumerate(session.losses(), 1):
        total = weigher.total(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        if step % problem.epoch == 0:
            weigher.end_epoch()
    seconds = time.process_time() - start
    validation = geometric_mean(list(session.errors("validation").values()))
    return Outcome(validation, dict(session.errors("test")), seconds)
