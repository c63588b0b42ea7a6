"""How long the stages of a command take."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class StageClock:
    """Adds up the seconds of each stage, however often the stages take turns."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time until the end of the block."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def each(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and count the time that getting them takes."""
        iterator = iter(items)
        try:
            while True:
                with self.stage(name):
                    item = next(iterator)
                yield item
        except StopIteration:
            return

    def summary(self) -> str:
        """Return the seconds of all stages on one line."""
        return ", ".join(f"{name} {seconds:.2f}" for name, seconds in self.seconds.items())
