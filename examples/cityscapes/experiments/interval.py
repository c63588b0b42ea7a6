"""Means over seeds with their confidence intervals."""

import math
from collections.abc import Iterable
from statistics import fmean, stdev
from typing import NamedTuple

from scipy.stats import t

LEVEL = 0.95


class Interval(NamedTuple):
    """A mean, and how well some runs determine it."""

    mean: float | None
    """The mean; None if there are no values."""
    half_width: float | None
    """Half the width of the 95% t-interval; None for fewer than two values."""
    num_values: int


def interval(values: Iterable[float | None]) -> Interval:
    """Return the mean of the known values with its t-interval."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Interval(fmean(known) if known else None, None, len(known))
    quantile = float(t.ppf((1 + LEVEL) / 2, len(known) - 1))
    return Interval(fmean(known), quantile * stdev(known) / math.sqrt(len(known)), len(known))
