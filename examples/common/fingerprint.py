"""What a file was when it was read, so that a later change is noticed."""

import zlib
from pathlib import Path
from typing import TypedDict


class Facts(TypedDict):
    """One source file, as a manifest records it."""

    path: str
    """Relative to the root of the dataset."""
    bytes: int
    mtime_ns: int
    crc32: int


def facts_of(path: Path, root: Path) -> Facts:
    """Look at a file, and read all of it."""
    status = path.stat()
    return {
        "path": path.relative_to(root).as_posix(),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "crc32": zlib.crc32(path.read_bytes()),
    }


def is_unchanged(path: Path, facts: Facts) -> bool:
    """Whether a file still has the content that was recorded.

    Copying a dataset changes the times of its files, so that a new time alone is no change: the
    content decides, and is read in that case only.
    """
    status = path.stat()
    if status.st_size != facts["bytes"]:
        return False
    return (
        status.st_mtime_ns == facts["mtime_ns"] or zlib.crc32(path.read_bytes()) == facts["crc32"]
    )
