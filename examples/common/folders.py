"""Folders that appear when they are complete."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def complete_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write to that takes the place of `out` at the end, unless anything fails."""
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)  # left by a process that was killed
    partial.mkdir(parents=True)
    try:
        yield partial
        replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def replace_folder(new: Path, old: Path) -> None:
    """Put a folder where another one may be."""
    retired = old.with_name(f".{old.name}.old")
    if retired.exists():
        shutil.rmtree(retired)
    if old.exists():
        old.rename(retired)
    new.rename(old)
    if retired.exists():
        shutil.rmtree(retired)
