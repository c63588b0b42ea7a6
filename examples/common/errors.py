"""Errors that a command reports without a traceback."""


class InputError(Exception):
    """Input that the user can correct: one clear line, exit status 2, no traceback."""


def reason_of(error: Exception, at_most: int = 160) -> str:
    """Return the first sentence of an error's message, cut if it is long."""
    lines = [" ".join(line.split()) for line in str(error).split("\n") if line.strip()]
    # PyTorch has a heading, and then a line for every fault.
    reason = " ".join(lines[: 2 if lines and lines[0].endswith(":") else 1])
    reason = reason or type(error).__name__
    return reason if len(reason) <= at_most else reason[:at_most] + "..."


class NonFiniteLossError(Exception):
    """Training has diverged: one clear line, exit status 1.

    Args:
        message: The line.
        iteration: When it happened.
    """

    def __init__(self, message: str, iteration: int) -> None:
        super().__init__(message)
        self.iteration = iteration


class OtherProcessError(Exception):
    """Another process of the same run has failed, and says why: exit status 1, without a line."""
