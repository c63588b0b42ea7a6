"""What is wrong with a dataset, gathered instead of raised one by one."""

from collections.abc import Callable, Iterator
from typing import ParamSpec, TypeVar

from examples.common.errors import InputError

P = ParamSpec("P")
T = TypeVar("T")


class Problems:
    """Lines of text by the kind of problem, in the order in which the kinds first occur."""

    def __init__(self) -> None:
        self._lines: dict[str, list[str]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def add(self, kind: str, line: str | InputError) -> None:
        """Add a problem.

        Args:
            kind: What such problems have in common, as the title of a list.
            line: What is wrong, and with which file.
        """
        self._lines.setdefault(kind, []).append(" ".join(str(line).split()))

    def unless_refused(
        self, kind: str, read: Callable[P, T], *args: P.args, **options: P.kwargs
    ) -> T | None:
        """Return what `read` does; None, with a problem, if that raises an `InputError`."""
        try:
            return read(*args, **options)
        except InputError as error:
            self.add(kind, error)
            return None

    def report(self, show: int) -> Iterator[str]:
        """Yield the lines of a report, with at most `show` problems of each kind."""
        for kind, lines in self._lines.items():
            yield f"{kind} ({len(lines)}):"
            yield from (f"  {line}" for line in lines[:show])
            if len(lines) > show:
                yield f"  ... and {len(lines) - show} more"
