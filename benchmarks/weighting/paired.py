"""How ways to weigh are compared: paired by seed, and at the cost of every try."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from benchmarks.timing import Ratio
from benchmarks.weighting.one_training import Outcome
from benchmarks.weighting.ways import EQUAL, Way

ByWay = Mapping[str, Sequence[Outcome]]
"""Outcomes by the name of the way, one for each seed, in the same order."""


def with_choices(ways: Sequence[Way], outcomes: ByWay) -> tuple[dict[str, list[Outcome]], str]:
    """Return one entry for each way, where those that are `one_of` a choice became the choice.

    Equal weights, which are among the fixed ones, also stay by themselves. The text says what was
    chosen how often.
    """
    choices: dict[str, list[str]] = {}
    for way in ways:
        if way.one_of:
            choices.setdefault(way.one_of, []).append(way.name)
    found = {
        way.name: list(outcomes[way.name]) for way in ways if not way.one_of or way.name == EQUAL
    }
    said = []
    for choice, names in choices.items():
        best = [
            best_of(dict(zip(names, of_seed, strict=True)))
            for of_seed in zip(*(outcomes[name] for name in names), strict=True)
        ]
        found[choice] = [outcome for _, outcome in best]
        chosen = [name for name, _ in best]
        counts = ", ".join(f"{name} ({chosen.count(name)})" for name in dict.fromkeys(chosen))
        said.append(f"{choice}, of {len(names)}: {counts}")
    return found, "; ".join(said)


def best_of(outcomes: Mapping[str, Outcome]) -> tuple[str, Outcome]:
    """Return the name of the one with the best validation, and its outcome at the cost of all."""
    name = min(outcomes, key=lambda key: outcomes[key].validation)
    best = outcomes[name]
    total = sum(outcome.seconds for outcome in outcomes.values())
    return name, Outcome(best.validation, best.errors, total)


def paired_interval(values: Sequence[float], reference: Sequence[float]) -> Ratio:
    """Return the ratio of two lists that are paired by seed, with its 95% t-interval."""
    return interval([value / peer for value, peer in zip(values, reference, strict=True)])


def interval(ratios: Sequence[float]) -> Ratio:
    """Return the geometric mean of ratios with its 95% t-interval, from their logarithms.

    It is infinite where a training diverged.
    """
    if not np.isfinite(ratios).all():
        return Ratio(math.inf, math.inf, math.inf)
    logs = np.log(ratios)
    mean = float(logs.mean())
    if len(logs) < 2 or not logs.std():
        return Ratio(math.exp(mean), *([math.exp(mean) if len(logs) > 1 else math.nan] * 2))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))
