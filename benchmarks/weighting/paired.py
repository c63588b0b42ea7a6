"""How ways to weigh are compared: paired by seed, and at the cost of every try."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from benchmarks.timing import Ratio
from benchmarks.weighting.one_training import Outcome, geometric_mean
from benchmarks.weighting.ways import EQUAL, Way

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
