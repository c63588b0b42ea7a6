"""What every benchmark is told: how much effort, where, and with which seed."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

EFFORTS = ("full", "quick", "smoke")
"""The numbers that count; all benchmarks in some minutes; whether it runs at all."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run of a benchmark."""

    effort: str = "full"
    """One of `EFFORTS`."""
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (it is immutable)
    repeats: int | None = None
    """Rounds instead of the benchmark's own number."""
    seed: int = 0
    data: Path | None = None
    """A tree in the official layout; None generates scenes."""
    work: Path | None = None
    """Where scenes and trainings are kept, to go on from; None: in a folder that is removed."""

    def choose(self, full: T, quick: T, smoke: T) -> T:
        """Return what belongs to the effort."""
        return dict(zip(EFFORTS, (full, quick, smoke), strict=True))[self.effort]

    def rounds(self, full: int, quick: int = 7) -> int:
        """Return the number of rounds."""
        return self.repeats or self.choose(full, quick, 2)

    @contextmanager
    def folder(self, name: str) -> Iterator[Path]:
        """Yield the folder for what a benchmark writes beside its result."""
        if self.work is not None:
            folder = self.work / name / self.effort
            folder.mkdir(parents=True, exist_ok=True)
            yield folder
        else:
            with tempfile.TemporaryDirectory(prefix=f"{name}-") as temporary:
                yield Path(temporary)

    @property
    def synchronize(self) -> Callable[[], object]:
        """What waits for the device; a GPU is handed work faster than it does it."""
        return torch.cuda.synchronize if self.device.type == "cuda" else _nothing


def _nothing() -> None:
    pass
