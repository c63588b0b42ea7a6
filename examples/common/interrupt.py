"""Signals that ask a process to stop: Ctrl-C, and those that schedulers send before they kill."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

TERMINATIONS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""Signals that a scheduler sends before it kills, and a terminal when it is closed."""


@contextmanager
def noted_signals(*numbers: int) -> Iterator[list[int]]:
    """Record signals instead of ending the process; give the list of those received so far.

    A second Ctrl-C interrupts as usual: whoever presses it again does not want to wait.
    """
    received: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        received.append(number)
        if received.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt

    with _handled(numbers, note):
        yield received


@contextmanager
def ctrl_c_exits(line: str) -> Iterator[None]:
    """Let Ctrl-C print a line and end the process at once, while there is nothing to save."""

    def leave(*_: object) -> None:
        print(line, file=sys.stderr, flush=True)
        os._exit(130)

    with _handled((signal.SIGINT,), leave):
        yield


@contextmanager
def children_without_ctrl_c() -> Iterator[None]:
    """Start processes that never see Ctrl-C, which a terminal sends to all of them.

    The parent answers it. Children inherit which signals are blocked, so that they are safe from
    their first moment on; a Ctrl-C in the meantime reaches the parent at the end of the block.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _handled(numbers: tuple[int, ...], handler: Callable[..., None]) -> Iterator[None]:
    """Handle signals by a function, unless this process was told to ignore them."""
    before = {}
    if threading.current_thread() is threading.main_thread():  # no other may handle signals
        for number in numbers:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
