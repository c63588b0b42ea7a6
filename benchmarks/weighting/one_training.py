"""One training of one problem with one way to weigh: the same loop for all of them."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from benchmarks.weighting.ways import Losses, Weigher

Errors = Mapping[str, float]
"""By name, each above 0, lower is better."""


class Session(Protocol):
    """A problem with the data and the initial network that belong to a seed."""

    model: nn.Module

    def losses(self) -> Iterator[Losses]:
        """Yield what each training step is to minimise, from batches in the seed's order."""

    def errors(self, split: str) -> Errors:
        """Return the errors on `validation` or `test` data."""


class Problem(Protocol):
    """What is learned."""

    name: str
    likelihoods: Mapping[str, str]
    """Of each task's loss, by name."""
    steps: int
    epoch: int
    """Steps in which all training data are seen once."""
    learning_rate: float

    def start(self, seed: int) -> Session:
        """Return what one training starts from."""


@dataclass(frozen=True)
class Outcome:
    """What one training ended with."""

    validation: float
    """The score that the best of several trainings is chosen by; infinite if it diverged."""
    errors: dict[str, float]
    """On the test data."""
    seconds: float
    """Processor time of the training steps."""

    @property
    def score(self) -> float:
        """The geometric mean of the errors: no task's units matter."""
        return geometric_mean(list(self.errors.values()))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; infinite if a value is not finite."""
    if not all(map(math.isfinite, values)):
        return math.inf
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def train(problem: Problem, weigher: Weigher, seed: int) -> Outcome:
    """Train once with AdamW. The network's learning rate falls to 0, that of the weights stays."""
    torch.manual_seed(seed)
    session = problem.start(seed)
    network: dict[str, Any] = {"params": list(session.model.parameters())}
    learned = weigher.groups()
    optimizer = AdamW([network, *learned], lr=problem.learning_rate, weight_decay=1e-4)
    schedule = LambdaLR(
        optimizer, [lambda step: 1 - step / problem.steps, *[lambda _: 1.0] * len(learned)]
    )
    start = time.process_time()
    for step, losses in enumerate(session.losses(), 1):
        total = weigher(losses)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        if step % problem.epoch == 0:
            weigher.end_epoch()
    seconds = time.process_time() - start
    validation = geometric_mean(list(session.errors("validation").values()))
    return Outcome(validation, dict(session.errors("test")), seconds)
