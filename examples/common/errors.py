"""What goes wrong in a way that the user can mend."""


class InputError(Exception):
    """Input that the user can mend: one clear line, exit status 2, no traceback."""
