"""What trainings end with, and how two ways to train are compared over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from benchmarks.timing import Ratio

GRID = "best of the grid"


@dataclass(frozen=True)
class Outcome:
    """One training."""

    validation: float
    """The score on the set that the best of several trainings may be chosen by."""
    errors: dict[str, float]
    """By task, on the test set."""
    seconds: float
    """Processor time of the training."""

    @property
    def score(self) -> float:
        """The geometric mean of the errors."""
        return geometric_mean(list(self.errors.values()))


def geometric_mean(values: Sequence[float]) -> float:
    """Return the geometric mean; of a value of 0 or nan, a very small one or nan."""
    return math.exp(sum(math.log(max(value, 1e-12)) for value in values) / len(values))


def best_of_grid(outcomes: Mapping[str, Outcome]) -> tuple[str, Outcome]:
    """Return the name of the one with the best validation, and its outcome at the cost of all."""
    name = min(outcomes, key=lambda key: outcomes[key].validation)
    best = outcomes[name]
    total = sum(outcome.seconds for outcome in outcomes.values())
    return name, Outcome(best.validation, best.errors, total)


def paired_interval(values: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Return the ratio of two lists paired by seed, with its 95% t-interval, from logarithms."""
    logs = np.log(np.asarray(values) / np.asarray(reference))
    mean = float(logs.mean())
    if len(logs) < 2 or not logs.std():
        return Ratio(math.exp(mean), *([math.exp(mean) if len(logs) > 1 else math.nan] * 2))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
