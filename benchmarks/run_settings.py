"""What every benchmark is told: how much effort, on which device, and with which seed."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

EFFORTS = ("full", "quick", "smoke")
"""`full` gives results to quote, `quick` takes minutes, `smoke` only tests that it runs."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run of a benchmark."""

    effort: str = "full"
    device: torch.device = torch.device("cpu")  # noqa: RUF009 (it is immutable)
    repeats: int | None = None
    """The number of rounds or seeds, instead of the benchmark's own."""
    seed: int = 0
    data: Path | None = None
    """A dataset in the official layout; None generates scenes."""
    work: Path | None = None
    """Folder that keeps scenes and trainings for the next run; None keeps nothing."""

    def choose(self, full: Any, quick: Any, smoke: Any) -> Any:
        """Return the value that belongs to this effort."""
        return {"full": full, "quick": quick, "smoke": smoke}[self.effort]

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

    def synchronize(self) -> None:
        """Wait for the device: a call returns before the GPU has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
