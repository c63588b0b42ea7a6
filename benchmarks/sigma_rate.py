"""Sigma's learning rate: how weights lag behind `c/L`, fluctuate, and react to a wrong loss."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor
from torch.optim import SGD, Adam, Optimizer

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.timing import spread
from benchmarks.weighting.one_training import Problem, train
from benchmarks.weighting.pinn import Poisson
from benchmarks.weighting.table_problems import TABLES
from benchmarks.weighting.ways import Losses, Weigher
from uncertainty_mtl import UncertaintyWeightedLoss

Rate = tuple[type[Optimizer], float]
"""The optimizer of the sigmas, and its learning rate."""
RATES = (Adam, 1e-2), (Adam, 3e-3), (Adam, 3e-2), (Adam, 1e-1), (SGD, 1e-2), (SGD, 1e-1)
"""The first is the library's default, to which the scores of the others are compared."""
EARLY = 300
"""Steps after which a small network's losses have fallen most of their way."""
WRONG = 1000.0
"""The factor that makes a loss wrong."""
WINDOW = 50
"""Steps over which a loss is averaged, as a single batch says little about a task."""

ABOUT = f"""\
Weights learned from a start from data, `form="nll"`. `w / (c/L)` is a weight over the weight that
sigma's optimum would give, with the loss averaged over {WINDOW} steps, geometric mean over the
tasks: 1 means no lag. `early` is after {EARLY} steps, `later` in the second half of the training.
`noise` is the standard deviation of a log weight over the last {2 * WINDOW} steps, for the task
where it is largest. `wrong loss`: the loss of the first task is multiplied by {WRONG:g} in one step
halfway, and its weight is compared with its weight in the same training without this change; the
table shows the largest factor between them, and after how many steps they stay within 10% of each
other. `score` is the geometric mean of the test errors over that of Adam at 0.01. Medians over
problems and seeds, with the range of the middle 80%."""


class Recorded:
    """Learned weights with an optimizer of their own; keeps losses and weights of each step.

    The loss of the first task is wrong in step `wrong_at`.
    """

    def __init__(self, likelihoods: Mapping[str, str], rate: Rate, wrong_at: int | None) -> None:
        self.loss_fn = UncertaintyWeightedLoss(dict(likelihoods))
        optimizer, learning_rate = rate
        self.optimizer = optimizer(self.loss_fn.parameters(), lr=learning_rate)
        self.wrong_at = wrong_at
        self.losses: list[list[float]] = []
        self.weights: list[list[float]] = []

    def total(self, losses: Losses) -> Tensor:
        """Update the sigmas from the last backward pass, then weigh the losses of this step."""
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
    seeds = range(settings.seed, settings.seed + (settings.repeats or settings.choose(3, 2, 1)))
    rows = []
    reference: list[float] = []
    for rate in settings.choose(RATES, RATES, RATES[:2]):
        found = [measure(problem, rate, s) for problem in problems(settings) for s in seeds]
        scores = [of_one.pop("score") for of_one in found]
        reference = reference or scores
        columns = {name: spread(np.array([f[name] for f in found])) for name in found[0]}
        columns["score"] = spread(np.divide(scores, reference))
        optimizer, learning_rate = rate
        rows.append([f"{optimizer.__name__} {learning_rate:g}", *columns.values()])
    return Report("Sigma's learning rate", ABOUT, [Table("Rates", ["rate", *columns], rows)])


def problems(settings: Settings) -> Sequence[Problem]:
    """Return problems: some with noise, one with classes, and two with losses that go to 0."""
    names = ("toy", "digits", "noise 0.1, 1 and 10", "one task without noise")
    tables = [
        replace(t, epochs=settings.choose(t.epochs, t.epochs // 5, 6 * WINDOW // t.epoch + 1))
        for t in TABLES
        if t.name in settings.choose(names, names, names[:1])
    ]
    return [*tables, *settings.choose([Poisson()], [Poisson(800)], [])]


def measure(problem: Problem, rate: Rate, seed: int) -> dict[str, float]:
    """Train with and without a wrong loss, and return a number for each column of the table."""
    half = problem.steps // 2
    plain = Recorded(problem.likelihoods, rate, wrong_at=None)
    wrong = Recorded(problem.likelihoods, rate, wrong_at=half)
    score = train(problem, Weigher(plain.total), seed).score
    train(problem, Weigher(wrong.total), seed)
    log_weights = np.log(plain.weights)
    log_lag = log_weights - np.log(optima(plain.losses))
    apart = np.abs(np.log(np.divide(wrong.weights, plain.weights)[half:, 0]))
    return {
        "early w / (c/L)": math.exp(log_lag[min(EARLY, half)].mean()),
        "later": math.exp(log_lag[half:].mean()),
        "noise": log_weights[-2 * WINDOW :].std(0).max(),
        "wrong loss: factor": math.exp(apart.max()),
        "wrong loss: steps": 1 + max(np.flatnonzero(apart > math.log(1.1)), default=0),
        "score": score,
    }


def optima(losses: Sequence[Sequence[float]]) -> np.ndarray:
    """Return `c/L` for each step and task, with the loss averaged over the steps around."""
    kernel = np.ones(WINDOW)
    counts = np.convolve(np.ones(len(losses)), kernel, "same")
    means = [np.convolve(of_task, kernel, "same") / counts for of_task in np.transpose(losses)]
    # A loss can be exactly 0; `sigma_bounds` ends at 1e-6, where the weight is 0.5 / 1e-12.
    return 0.5 / np.maximum(np.stack(means, 1), 1e-12)  # c of a Gaussian and of a softmax
