"""What goes wrong in a way that the user can mend."""


class InputError(Exception):
    """Input that the user can mend: one clear line, exit status 2, no traceback."""


class NonFiniteLossError(Exception):
    """Training has diverged: one clear line, exit status 1.

    Args:
        message: The line.
        iteration: When it happened.
    """

    def __init__(self, message: str, iteration: int) -> None:
        super().__init__(message)
        self.iteration = iteration
