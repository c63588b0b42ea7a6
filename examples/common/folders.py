"""Files and folders that appear when they are complete."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """Give a path to write to; that file replaces `path` at the end, unless anything fails."""
    partial = path.with_name(path.name + ".partial")
    try:
        with named_in_errors(path):
            yield partial
            partial.replace(path)
    finally:
        with suppress(OSError):  # it has taken its place, or could not be made
            partial.unlink()


@contextmanager
def complete_folder(out: Path) -> Iterator[Path]:
    """Give a folder to write to; it replaces `out` at the end, unless anything fails."""
    partial = out.with_name(f".{out.name}.partial")
    if partial.exists():
        shutil.rmtree(partial)  # left by a process that was killed
    partial.mkdir(parents=True)
    try:
        with named_in_errors(out):
            yield partial
            replace_folder(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def named_in_errors(path: Path) -> Iterator[None]:
    """Add the path to errors about writing: the system names a file only if opening it fails.

    NumPy does not even say what went wrong ("2000000 requested and 786416 written"); in nearly all
    cases, the disk is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            number = errno.ENOSPC if "requested and" in str(error) else errno.EIO
            raise OSError(number, str(error), str(path)) from error
        if error.filename is None:
            error.filename = str(path)
        raise


def replace_folder(new: Path, old: Path) -> None:
    """Rename the folder `new` to `old`, replacing what is there."""
    retired = old.with_name(f".{old.name}.old")
    if retired.exists():
        shutil.rmtree(retired)
    if old.exists():
        old.rename(retired)
    new.rename(old)
    if retired.exists():
        shutil.rmtree(retired)
