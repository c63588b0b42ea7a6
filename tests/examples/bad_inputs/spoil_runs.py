"""What spoils runs and copies, and how their rows are checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from examples.common.checkpoint import read_checkpoint, save_checkpoint

RESUME = "train --out run --resume"
MEASURE = "evaluate --run run --data scenes --device cpu"

LAST = Path("run/last.pt")


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[], None]:
    """Return what changes the contents of the last checkpoint."""

    def spoil() -> None:
        saved = read_checkpoint(LAST)
        change(saved)
        save_checkpoint(LAST, saved)

    return spoil


def flip(path: Path | str, at: float) -> None:
    """Flip a bit of a file, so far into it."""
    content = bytearray(Path(path).read_bytes())
    content[int(at * len(content))] ^= 16
    Path(path).write_bytes(content)


def has_trained(path: str = "new") -> Callable[[], None]:
    """Return what asserts that a run has been trained to its end."""

    def check() -> None:
        assert read_checkpoint(Path(path) / "last.pt")["iteration"] == 2
        assert len((Path(path) / "metrics.jsonl").read_text().splitlines()) == 2

    return check
