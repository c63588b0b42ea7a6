"""Sigma's learning rate: how far weights lag behind `c/L`, what noise and one wrong loss do."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import spread
from benchmarks.weighting.one_training import Outcome, Problem, train
from benchmarks.weighting.pinn import Poisson
from benchmarks.weighting.table_problems import TABLES
from benchmarks.weighting.ways import Losses, Ours

THREADS = 1

RATES: tuple[tuple[type[Optimizer], float], ...] = (
    (Adam, 1e-2),
    (Adam, 3e-3),
    (Adam, 3e-2),
    (Adam, 1e-1),
    (SGD, 1e-2),
    (SGD, 1e-1),
)
"""The first is the library's default, to which the scores of the others are compared."""
EARLY = 300
"""Steps after which a small network's losses have fallen most of their way."""
WRONG = 1000.0
"""How many times its size one loss has in one step."""
WINDOW = 50
"""Steps over which a loss is averaged: that of one batch says little of the task."""

ABOUT = f"""\
Weights learned from a start from data, `form="nll"`. `w / (c/L)` is a weight over the weight that
sigma's optimum would give, with the loss averaged over {WINDOW} steps, geometric mean over the
tasks: 1 has no lag. `early` is after {EARLY} steps, `later` in the second half of the training.
`noise` is the standard deviation of a log weight over {2 * WINDOW} steps at the end, largest task.
`wrong loss` is what one loss of {WRONG:g} times its size, in one step halfway, does to its weight:
the largest factor by which it then differs from the same training without, and the steps until it
differs by less than 10% for good. `score` is the geometric mean of the test errors over that of
Adam at 0.01. Medians over problems and seeds, with the range of the middle 80%."""


class Recorded(Ours):
    """Learned weights with an optimizer of their own, which keep losses and weights of each step.

    Args:
        likelihoods: By task.
        optimizer: Of the sigmas.
        rate: Its learning rate.
        wrong_at: In which step the first task's loss is far too large.
    """

    def __init__(
        self, likelihoods: Any, optimizer: type[Optimizer], rate: float, wrong_at: int | None = None
    ) -> None:
        super().__init__(likelihoods)
        self.optimizer = optimizer(self.loss_fn.parameters(), lr=rate)
        self.wrong_at = wrong_at
        self.losses: list[list[float]] = []
        self.weights: list[list[float]] = []

    def groups(self) -> list[dict[str, Any]]:
        """Leave the sigmas to the optimizer here."""
        return []

    def __call__(self, losses: Losses) -> Tensor:
        """Take the step of the last backward pass, and weigh the losses of this one."""
        self.optimizer.step()
        self.optimizer.zero_grad()
        first = next(iter(losses))
        if len(self.losses) == self.wrong_at and losses[first] is not None:
            losses = {**losses, first: WRONG * losses[first]}
        result = self.loss_fn(dict(losses))
        self.losses.append([float(value) for value in result.errors.values()])
        self.weights.append([float(value) for value in self.loss_fn.weights().values()])
        return result.total


def run(settings: Settings) -> Report:
    """Train every problem at every rate."""
    seeds = [settings.seed + k for k in range(settings.repeats or settings.choose(3, 2, 1))]
    rows = []
    reference: list[float] = []
    for optimizer, rate in settings.choose(RATES, RATES, RATES[:2]):
        found = [
            measure(problem, optimizer, rate, seed)
            for problem in problems(settings)
            for seed in seeds
        ]
        scores = [f.pop("score") for f in found]
        reference = reference or scores
        columns = {name: spread(np.array([f[name] for f in found])) for name in found[0]}
        score = spread(np.array(scores) / np.array(reference))
        rows.append([f"{optimizer.__name__} {rate:g}", *columns.values(), score])
    return Report(
        "Sigma's learning rate", ABOUT, [Table("Rates", ["rate", *columns, "score"], rows)]
    )


def problems(settings: Settings) -> Sequence[Problem]:
    """Return noise, classes, a loss that goes to 0, and losses that all go to 0."""
    names = ("toy", "digits", "noise 0.1, 1 and 10", "one task without noise")
    tables = [
        replace(t, epochs=settings.choose(t.epochs, t.epochs // 5, 6 * WINDOW // t.epoch + 1))
        for t in TABLES
        if t.name in names[: settings.choose(4, 4, 1)]
    ]
    return [*tables, *settings.choose([Poisson()], [Poisson(800)], [])]


def measure(
    problem: Problem, optimizer: type[Optimizer], rate: float, seed: int
) -> dict[str, float]:
    """Train once as it is, and once with one wrong loss."""
    plain, outcome = train_recorded(problem, optimizer, rate, seed, None)
    half = problem.steps // 2
    wrong, _ = train_recorded(problem, optimizer, rate, seed, half)
    log_lag = np.log(plain.weights) - np.log(optima(plain))
    early = min(EARLY, half)
    apart = np.abs(np.log(np.array(wrong.weights)[half:, 0] / np.array(plain.weights)[half:, 0]))
    return {
        "early w / (c/L)": math.exp(log_lag[early].mean()),
        "later": math.exp(log_lag[half:].mean()),
        "noise": float(np.log(plain.weights[-2 * WINDOW :]).std(0).max()),
        "wrong loss: factor": math.exp(apart.max()),
        "wrong loss: steps": 1.0 + int(np.flatnonzero(apart > math.log(1.1))[-1:].sum()),
        "score": outcome.score,
    }


def train_recorded(
    problem: Problem, optimizer: type[Optimizer], rate: float, seed: int, wrong_at: int | None
) -> tuple[Recorded, Outcome]:
    """Return what was recorded, and what the training ended with."""
    weigher = Recorded(problem.likelihoods, optimizer, rate, wrong_at)
    return weigher, train(problem, weigher, seed)


def optima(recorded: Recorded) -> np.ndarray:
    """Return `c/L` for each step and task, with the loss averaged over the steps around."""
    losses = np.array(recorded.losses)
    kernel = np.ones(WINDOW)
    counts = np.convolve(np.ones(len(losses)), kernel, "same")
    means = [np.convolve(column, kernel, "same") / counts for column in losses.T]
    # A loss can be exactly 0; `sigma_bounds` ends at 1e-6, where the weight is 0.5 / 1e-12.
    return 0.5 / np.maximum(np.stack(means, 1), 1e-12)  # c of a Gaussian and of a softmax
