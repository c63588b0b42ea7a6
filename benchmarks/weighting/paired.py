"""Compares ways to weigh, paired by seed. A choice costs all the trainings that it tried."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from benchmarks.result_file import Table
from benchmarks.timing import Ratio
from benchmarks.weighting.one_training import Outcome, geometric_mean
from benchmarks.weighting.study import Compared, Job
from benchmarks.weighting.ways import EQUAL, GRID, Way

ABOUT = """\
The score of a training is the geometric mean of its errors on test data; lower is better. Which of
two scores is lower does not depend on the units of any task. A number is the score over that of
equal weights, paired by seed: the geometric mean over the seeds with a 95% t-interval. Below 1 is
better than equal weights. A seed decides data, their order and the initial network, and is the same
for all ways. Networks are trained by AdamW with a rate that falls to 0; sigma has the library's
default rate, and the parameters of TorchJD have that of the network. A choice among several
trainings is made for each seed by the score on validation data; its compute is that of all of them.
Compute is processor time. Errors are means over seeds: for numbers the root mean square error over
the standard deviation of the target, for classes the Brier score (an error rate of few rows can be
0), for scenes `1 - mean IoU` and pixels. `TorchJD's` are the scalarizers of that library; all
others are this one, fixed weights included."""

ByWay = Mapping[str, Sequence[Outcome]]
"""Outcomes by the name of the way, one for each seed, in the same order."""

Ratios = Mapping[str, Mapping[str, Sequence[float]]]
"""Scores over those of equal weights by problem and way, one for each seed."""


def with_choices(ways: Sequence[Way], outcomes: ByWay) -> tuple[ByWay, str]:
    """Return one entry for each way; of those that are `one_of` a choice, the chosen one.

    Equal weights, which are among the fixed ones, also keep an entry of their own. The text says
    how often each was chosen.
    """
    found = {way.name: outcomes[way.name] for way in ways if not way.one_of or way.name == EQUAL}
    texts = []
    for choice in dict.fromkeys(way.one_of for way in ways if way.one_of):
        names = [way.name for way in ways if way.one_of == choice]
        by_seed = zip(*(outcomes[name] for name in names), strict=True)
        best = [best_of(dict(zip(names, of_seed, strict=True))) for of_seed in by_seed]
        found[choice] = [outcome for _, outcome in best]
        counts = Counter(name for name, _ in best)
        chosen = ", ".join(f"{name} ({count})" for name, count in counts.items())
        texts.append(f"{choice}, of {len(names)}: {chosen}")
    return found, "; ".join(texts)


def best_of(outcomes: Mapping[str, Outcome]) -> tuple[str, Outcome]:
    """Return the name of the one with the best validation, and its outcome at the cost of all."""
    name = min(outcomes, key=lambda key: outcomes[key].validation)
    total = sum(outcome.seconds for outcome in outcomes.values())
    return name, replace(outcomes[name], seconds=total)


def interval(ratios: Sequence[float]) -> Ratio:
    """Return the geometric mean of ratios, one for each seed, with its 95% t-interval."""
    if not np.isfinite(ratios).all():  # a training diverged
        return Ratio(math.inf, math.inf, math.inf)
    logs = np.log(ratios)
    mean, half = logs.mean(), stats.t.ppf(0.975, len(logs) - 1) * stats.sem(logs)
    return Ratio(*np.exp([mean, mean - half, mean + half]).tolist())


def over_all(ratios: Ratios, way: str) -> list[float]:
    """Return the geometric means over the problems, one for each seed."""
    by_seed = zip(*(of_ways[way] for of_ways in ratios.values()), strict=True)
    return [geometric_mean(of_seed) for of_seed in by_seed]


def by_way(one: Compared, seeds: Sequence[int], outcomes: Mapping[Job, Outcome]) -> ByWay:
    """Return the outcomes of one problem."""
    return {way: [outcomes[Job(one.problem.name, way, s)] for s in seeds] for way in one.ways}


def winner_of(one: Compared, seeds: Sequence[int], outcomes: Mapping[Job, Outcome]) -> str:
    """Return the fixed weights with the best validation over the seeds."""
    found = by_way(one, seeds, outcomes)
    in_grid = [name for name, way in one.ways.items() if way.one_of == GRID]
    return min(in_grid, key=lambda name: geometric_mean([o.validation for o in found[name]]))


def over_equal(found: ByWay, way: str, what: str) -> list[float]:
    """Return the scores or the seconds of a way over those of equal weights, by seed."""
    pairs = zip(found[way], found[EQUAL], strict=True)
    return [getattr(outcome, what) / getattr(equal, what) for outcome, equal in pairs]


def overview(ratios: Ratios, apart: str) -> Table:
    """Return a table of every way on every problem; the way that is best overall comes first.

    The problem `apart` does not count for the order: its ratios are so far from 1 that no other
    problem would matter.
    """
    most = {name: of_ways for name, of_ways in ratios.items() if name != apart}
    rows = []
    for way in ratios[apart]:
        of_problems = [interval(of_ways[way]).median for of_ways in most.values()]
        numbers = [f"{ratio:.2f}" for ratio in (max(of_problems), *of_problems)]
        rows.append([way, interval(over_all(most, way)), *numbers, interval(ratios[apart][way])])
    rows.sort(key=lambda row: row[1])
    columns = ["way to weigh", "over all but the last", "worst of them", *most, apart]
    return Table("Score over that of equal weights", columns, rows)


def errors_table(problem: str, found: ByWay, note: str) -> Table:
    """Return one problem's scores, errors and compute."""
    errors = list(found[EQUAL][0].errors)
    rows = []
    for way, outcomes in found.items():
        score = interval(over_equal(found, way, "score"))
        compute = interval(over_equal(found, way, "seconds")).median
        means = [np.mean([outcome.errors[error] for outcome in outcomes]) for error in errors]
        rows.append([way, score, f"{compute:.2f}", *(f"{mean:.4g}" for mean in means)])
    columns = ["way to weigh", "score over equal", "compute over equal", *errors]
    return Table(f"{problem[:1].upper()}{problem[1:]} ({note})", columns, rows)
