"""Paired timing: candidates take turns on the same machine, and ratios are taken within a turn.

What else a machine does, its temperature and its clock frequency change over seconds. Candidates
that are timed one after another, each for its whole share, differ by that; a ratio within a round
of a few milliseconds does not. So every round times every candidate, in an order drawn anew, and
the figure is the median over rounds of the ratio in each.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

Clock = Callable[[], float]


class Ratio(NamedTuple):
    """The median over rounds, and the range that holds the middle 80% of them."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.low)}-{_short(self.high)})"


@dataclass(frozen=True)
class Timings:
    """Seconds per call by candidate, one entry for each round."""

    seconds: dict[str, np.ndarray]

    def ratio(self, candidate: str, peer: str) -> Ratio:
        """Return how many times the peer's seconds the candidate takes."""
        return spread(self.seconds[candidate] / self.seconds[peer])

    def median(self, candidate: str) -> float:
        """Return the median seconds per call, to tell the size of things and not to compare."""
        return float(np.median(self.seconds[candidate]))


def _nothing() -> None:
    pass


def take_turns(
    candidates: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    seed: int = 0,
    min_seconds: float = 2e-3,
    warm_up: int = 3,
    clock: Clock = time.perf_counter,
    synchronize: Callable[[], object] = _nothing,
    before: Mapping[str, Callable[[], object]] | None = None,
) -> Timings:
    """Time every candidate once in each of `rounds` rounds, in random order.

    Args:
        candidates: What to call, by name; each leaves things as it found them.
        rounds: How many times each is timed.
        seed: Of the order.
        min_seconds: A candidate is called as often as it takes to last so long, the same number
            of times in every round, so that reading the clock costs nothing beside it.
        warm_up: Calls before the first round: lazy initialisation, caches, compilation.
        clock: In seconds.
        synchronize: Waits for the device; called before the clock is read.
        before: What to call, untimed, before a candidate's turn.
    """
    before = before or {}
    for call in candidates.values():
        for _ in range(warm_up):
            call()

    def measure(name: str, calls: int) -> float:
        call = candidates[name]
        before.get(name, _nothing)()
        synchronize()
        start = clock()
        for _ in range(calls):
            call()
        synchronize()
        return (clock() - start) / calls

    rng = np.random.default_rng(seed)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    # A collection that one candidate's garbage sets off would be charged to whoever comes next.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        calls = {name: _calls_within(min_seconds, name, measure) for name in candidates}
        for _ in range(rounds):
            gc.collect(0)
            for name in rng.permutation(list(candidates)):
                seconds[name].append(measure(name, calls[name]))
    finally:
        if was_enabled:
            gc.enable()
    return Timings({name: np.array(values) for name, values in seconds.items()})


def forward_backward(total: Callable[[], Tensor], tensors: Sequence[Tensor]) -> Callable[[], None]:
    """Return a candidate: forward, backward, and dropping the gradients of these tensors."""

    def call() -> None:
        total().backward()
        for tensor in tensors:
            tensor.grad = None

    return call


def spread(values: np.ndarray) -> Ratio:
    """Return the median and the range from the 10th to the 90th percentile."""
    low, median, high = np.percentile(values, (10, 50, 90))
    return Ratio(float(median), float(low), float(high))


def duration(seconds: float) -> str:
    """Return seconds with a unit, in three digits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} us"


def _calls_within(min_seconds: float, name: str, measure: Callable[[str, int], float]) -> int:
    calls = 1
    while min_seconds and calls < 2**20 and measure(name, calls) * calls < min_seconds:
        calls *= 2
    return calls


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.3g}"
