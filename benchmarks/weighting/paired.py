"""How ways to weigh are compared: paired by seed, and at the cost of every try."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from benchmarks.timing import Ratio
from benchmarks.weighting.one_training import Outcome
from benchmarks.weighting.ways import Way

ByWay = Mapping[str, Sequence[Outcome]]
"""Outcomes by the name of the way, one for each seed, in the same order."""


def with_choices(ways: Sequence[Way], outcomes: ByWay) -> tuple[dict[str, list[Outcome]], str]:
    """Return one entry for each way, where those that are `one_of` a choice became the choice.

    Equal weights, the first of the fixed ones, also stay by themselves. The text says what was
    chosen how often.
    """
    choices: dict[str, list[str]] = {}
    for way in ways:
        if way.one_of:
            choices.setdefault(way.one_of, []).append(way.name)
    found = {
        way.name: list(outcomes[way.name])
        for way in ways
        if not way.one_of or (way.name == ways[0].name)
    }
    said = []
    for choice, names in choices.items():
        best = [
            best_of(dict(zip(names, of_seed, strict=True))) for of_seed in _by_seed(outcomes, names)
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
    """Return the ratio of two lists paired by seed, with its 95% t-interval, from logarithms.

    It is infinite where a training diverged.
    """
    if not np.isfinite(values).all():
        return Ratio(math.inf, math.inf, math.inf)
    logs = np.log(np.asarray(values) / np.asarray(reference))
    mean = float(logs.mean())
    if len(logs) < 2 or not logs.std():
        return Ratio(math.exp(mean), *([math.exp(mean) if len(logs) > 1 else math.nan] * 2))
    half = stats.t.ppf(0.975, len(logs) - 1) * logs.std(ddof=1) / math.sqrt(len(logs))
    return Ratio(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


def _by_seed(outcomes: ByWay, names: Sequence[str]) -> list[tuple[Outcome, ...]]:
    return list(zip(*(outcomes[name] for name in names), strict=True))
