"""What a file was when it was read, so that a later change is noticed."""

import hashlib
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypedDict


class Fingerprint(TypedDict):
    """One source file, as a manifest records it."""

    path: str
    """Relative to the root of the dataset."""
    bytes: int
    mtime_ns: int
    crc32: int


def fingerprint_of(path: Path, root: Path) -> Fingerprint:
    """Return the fingerprint of a file; this reads all of the file."""
    status = path.stat()
    return {
        "path": path.relative_to(root).as_posix(),
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "crc32": zlib.crc32(path.read_bytes()),
    }


def fingerprint_of_names(names: Iterable[str]) -> str:
    """Return a digest of names in their order."""
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def is_unchanged(path: Path, recorded: Fingerprint) -> bool:
    """Whether a file still has the content that was recorded.

    Copying a dataset changes the times of its files, so a new time by itself is not a change: the
    content decides, and is read in that case only.
    """
    status = path.stat()
    if status.st_size != recorded["bytes"]:
        return False
    return (
        status.st_mtime_ns == recorded["mtime_ns"]
        or zlib.crc32(path.read_bytes()) == recorded["crc32"]
    )
