"""Locks that let only one command at a time write to a folder."""

import contextlib
import os
import shlex
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from examples.common.errors import InputError
from examples.common.torchrun import is_first

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

_held: set[BinaryIO] = set()


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a folder that is written to; those who only read it take no lock.

    The lock is a file beside the folder, which says who holds it, and which is gone when the lock
    is. The system releases the lock of a process that dies, so a file that was left behind blocks
    nobody. If the system has no locks, a warning says so and the command goes on.

    Args:
        folder: It need not exist yet.
        wait: Whether to wait until the other command has ended, rather than to raise.

    Raises:
        InputError: If another command holds the lock; the message names that command.
    """
    if not is_first():
        yield
        return
    path = lock_file(folder)
    new = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{folder}: cannot be created, as {error.filename} is not a folder"
        ) from error
    file = _lock(path, folder, wait)
    try:
        yield
    finally:
        if file is not None:
            with contextlib.suppress(OSError):
                path.unlink()  # while it is locked: afterwards it may be that of somebody else
            _held.discard(file)
            file.close()
        for parent in new:  # a command that was refused has left nothing in them
            with contextlib.suppress(OSError):
                parent.rmdir()


def lock_file(folder: Path) -> Path:
    """Return where the lock of a folder is."""
    folder = folder.resolve()
    # Beside the folder, as some commands replace the whole folder. If nothing can be written there,
    # as beside a mounted disk, those commands cannot work anyway, and the file goes inside.
    beside, inside = folder.parent, folder
    is_closed = beside.is_dir() and not os.access(beside, os.W_OK)
    return (inside if is_closed else beside) / f".{folder.name}.lock"


def _lock(path: Path, folder: Path, wait: bool) -> BinaryIO | None:
    """Return the locked file, or None after a warning if there are no locks here."""
    if fcntl is None:
        _warn(folder, "this system has none")
        return None
    while True:
        file = None
        try:
            file = path.open("a+b", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            holder = _read(file)
            if file is not None:
                file.close()
            if isinstance(error, BlockingIOError):
                raise InputError(
                    f"{folder}: another command writes there ({holder}); wait until it has ended, "
                    "or choose another folder"
                ) from error
            _warn(folder, error.strerror or type(error).__name__)
            return None
        if _is_at(file, path):
            break
        file.close()  # its holder has removed it while we were about to lock it
    _held.add(file)
    with contextlib.suppress(OSError):  # a full disk: the lock holds without a name as well
        file.truncate(0)
        file.write(_this_process().encode())
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _this_process() -> str:
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    command = shlex.join(sys.argv[1:])[:200]
    return f"process {os.getpid()} on {socket.gethostname()} since {now}: {command}"


def _read(file: BinaryIO | None) -> str:
    with contextlib.suppress(OSError):
        if file is not None:
            file.seek(0)
            return file.read(1000).decode(errors="replace") or "it does not say which"
    return "it does not say which"


def _warn(folder: Path, reason: str) -> None:
    print(
        f"warning: {folder} cannot be locked ({reason}), so make sure that no other command "
        "writes there meanwhile",
        file=sys.stderr,
    )


def _let_go() -> None:
    for file in _held:
        file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    # A forked process, such as a worker that decodes images, inherits the lock, and lives on for
    # some seconds when its parent is killed: the run could not be resumed until then.
    os.register_at_fork(after_in_child=_let_go)
