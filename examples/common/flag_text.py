"""How a setting is written on a command line: its flag and its value."""


def flag_of(name: str) -> str:
    """Return the flag of a setting."""
    return "--" + name.replace("_", "-")


def value_text(name: str, value: object) -> str:
    """Return the value of a setting as its flag takes it."""
    if isinstance(value, tuple):
        return ("x" if name in ("size", "crop") else ",").join(map(str, value))
    return "none" if value is None else str(value)
