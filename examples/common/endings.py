"""What a command says when something ends it: one line and an exit status for each kind."""

import errno
import os
from pathlib import Path
from typing import NamedTuple

from examples.common.errors import InputError, NonFiniteLossError, OtherProcessError

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
# PyTorch has an out-of-memory error for GPUs only; on a CPU, it raises a RuntimeError.
_NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "shared memory")
_LOST_CONNECTION = ("Connection closed by peer", "Connection reset by peer")


class Ending(NamedTuple):
    """How a command ends."""

    line: str | None
    """The line to print; None if another process of the same run says why."""
    status: int


def ending_of(error: BaseException, *, interrupted: str, less_memory: str) -> Ending | None:
    """Return what to say about an error; None if it is a fault of the program.

    Args:
        error: What has ended the command.
        interrupted: What the command says after Ctrl-C; if empty, what the error says.
        less_memory: What makes the command need less memory.
    """
    if isinstance(error, KeyboardInterrupt):
        return Ending(interrupted or str(error) or "interrupted", 130)
    if isinstance(error, OtherProcessError):
        return Ending(None, 1)
    if isinstance(error, NonFiniteLossError):
        return Ending(str(error), 1)
    if is_out_of_memory(error):
        return Ending(f"needs more memory; {less_memory}", 2)
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        where = error.filename or "a file"
        return Ending(f"{where}: no space left on the disk; free some, or write elsewhere", 2)
    if isinstance(error, InputError | OSError):  # an OSError names its file
        return Ending(str(error), 2)
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _LOST_CONNECTION):
        return Ending("another process of this run has ended; its own message says why", 1)
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation has failed, in Python, in PyTorch or in the system."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, RuntimeError):
        return any(text in str(error) for text in _NO_MEMORY)
    return isinstance(error, MemoryError)


def may_speak() -> bool:
    """Whether this process is the one that says how a run of several processes ended.

    Among the processes that one `torchrun` has started, it is the first one to ask. So an error
    that all of them meet is printed once; and if one error makes the others fail, it is printed.
    """
    error_file, rank = os.environ.get("TORCHELASTIC_ERROR_FILE"), os.environ.get("RANK", "")
    if not error_file:
        return True
    # `torchrun` gives each process a folder; the one above is common to those of one start.
    speaker = Path(error_file).parents[1] / "speaker"
    try:
        with speaker.open("x", encoding="utf-8") as file:
            file.write(rank)
    except FileExistsError:
        return speaker.read_text(encoding="utf-8") == rank
    except OSError:
        pass  # better said twice than not at all
    return True
