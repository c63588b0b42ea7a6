"""Settings and logs: files of JSON, whose types and ranges are checked as they are read.

What a file should hold is a type: a `TypedDict` (fields that it does not know are passed over), or
a dataclass (which knows all its fields). `json_types.py` lists the types that fields may have.
"""

import json
import sys
from pathlib import Path
from typing import Any, Literal

from examples.common.errors import InputError
from examples.common.flag_text import flag_of
from examples.common.json_types import TOO_LARGE, Mismatch, checker_of


def read_object(path: Path, kind: Any, way_out: str) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Args:
        path: The file.
        kind: The type of what it should hold.
        way_out: What the user can do if it holds anything else.

    Raises:
        InputError: If there is no such file, or it holds anything else.
    """
    try:
        return _checked(path.read_bytes(), kind)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {way_out}") from error
    except Mismatch as error:
        raise InputError(f"{path}: {error}; {way_out}") from error


def check_whole_numbers(settings: dict[str, Any]) -> None:
    """Raise if a setting is a whole number that could not be read back from its file."""
    for name, value in settings.items():
        if type(value) is int and value >= TOO_LARGE:
            raise InputError(f"{flag_of(name)}: should be below 2**63; found {value}")


def read_lines(
    path: Path, kind: Any, on_damage: Literal["refuse", "warn", "skip"] = "refuse"
) -> list[dict[str, Any]]:
    """Read a log, which has one JSON object a line; a file that does not exist has none.

    The last line may be cut off, as a killed process leaves it; it is skipped. Nothing that this
    program does can explain damage to any other line.

    Args:
        path: The file.
        kind: The type of what each line should hold.
        on_damage: Whether damaged lines raise, or are left out with or without a warning.

    Raises:
        InputError: If a line is damaged, and `on_damage` is `refuse`.
    """
    if not path.is_file():
        return []
    *texts, _cut_off = path.read_bytes().split(b"\n")
    lines, damages = [], []
    for number, text in enumerate(texts, start=1):
        try:
            lines.append(_checked(text, kind))
        except Mismatch as error:  # noqa: PERF203 - a log has thousands of lines, not millions
            damages.append(f"{path}, line {number}: {error}")
    if damages and on_damage == "refuse":
        raise InputError(f"{damages[0]}; delete this line to go on without it")
    if damages and on_damage == "warn":
        others = len(damages) - 1
        tail = f", and so are {others} other damaged lines" if others > 1 else ""
        tail = ", and so is another damaged line" if others == 1 else tail
        print(f"warning: {damages[0]}; this line is left out{tail}", file=sys.stderr)
    return lines


def _checked(text: bytes, kind: Any) -> dict[str, Any]:
    try:
        # Editors on Windows may begin a file with a byte-order mark.
        value = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise Mismatch(f"is not readable as JSON ({error})") from error
    checker_of(kind)(value)
    return value
