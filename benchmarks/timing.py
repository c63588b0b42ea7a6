"""Paired timing: candidates take turns, and ratios are taken within a round of turns.

The speed of a machine changes within seconds, with its temperature and with what else it does. If
the candidates were timed one after the other, their ratio would include that change. So every round
times every candidate for some milliseconds, in random order. The result is the median of the ratios
of all rounds.
"""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch import Tensor

from benchmarks.run_settings import Settings

WARM_UP = 3
"""Calls before the first round, for lazy initialisation and caches."""


class Ratio(NamedTuple):
    """A number and a range around it, such as the median of rounds and their middle 80%."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        median, low, high = (f"{x:.2f}" if x < 10 else f"{x:.3g}" for x in self)
        return f"{median} ({low}-{high})"


@dataclass(frozen=True)
class Timings:
    """Seconds per call by candidate, one entry for each round."""

    seconds: dict[str, np.ndarray]

    def ratio(self, candidate: str, peer: str) -> Ratio:
        """Return the candidate's time as a multiple of the peer's."""
        return spread(self.seconds[candidate] / self.seconds[peer])

    def per_call(self, candidate: str) -> str:
        """Return the median time of a call, to show its order of magnitude."""
        seconds = float(np.median(self.seconds[candidate]))
        if seconds >= 1:
            return f"{seconds:.3g} s"
        return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} us"


def take_turns(
    candidates: Mapping[str, Callable[[], object]],
    settings: Settings,
    *,
    rounds: int,
    seconds: float = 2e-3,
    clock: Callable[[], float] = time.perf_counter,
) -> Timings:
    """Time every candidate once in each round.

    Args:
        candidates: The functions to call, by name. A call must not change what later calls do.
        settings: Has the seed, which decides the order of the turns, and the device to wait for.
        rounds: How often each candidate is timed.
        seconds: How long a turn lasts at least. A candidate is called as often as that takes, the
            same number of times in every round.
        clock: Returns seconds.
    """

    def measure(name: str, calls: int) -> float:
        call = candidates[name]
        settings.synchronize()
        start = clock()
        for _ in range(calls):
            call()
        settings.synchronize()
        return (clock() - start) / calls

    def calls_of(name: str) -> int:
        calls = 1
        while seconds and calls < 2**20 and measure(name, calls) * calls < seconds:
            calls *= 2
        return calls

    for call in candidates.values():
        for _ in range(WARM_UP):
            call()
    rng = np.random.default_rng(settings.seed)
    found: dict[str, list[float]] = {name: [] for name in candidates}
    # Otherwise the garbage of one candidate could be collected in the turn of another.
    gc.disable()
    try:
        calls = {name: calls_of(name) for name in candidates}
        for _ in range(rounds):
            gc.collect(0)
            for name in rng.permutation(list(candidates)):
                found[name].append(measure(name, calls[name]))
    finally:
        gc.enable()
    return Timings({name: np.array(values) for name, values in found.items()})


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
