"""Writes the documentation's page of the table: `python -m tests.examples.bad_inputs.page`."""

import re
from collections.abc import Iterable
from pathlib import Path

from tests.examples.bad_inputs import TABLE
from tests.examples.bad_inputs.row import Accepted, Refused

PAGE = Path(__file__).parents[3] / "docs" / "examples" / "cityscapes_inputs.md"

INTRODUCTION = """\
# Street scenes: inputs that are accepted and refused

Here you find out why a command of the street-scene example has refused an input, and which unusual
inputs it accepts. [The data](cityscapes_data.md) describes the inputs that it expects.

If a command cannot use an input, it prints one line, which begins with `error:`, and exits with
status 2. The line names the file or option, says what was expected and found, and ends with a way
out. What was computed before is kept, and no half-written file is left.

To find a message, search this page for the words after the name of the file. The page shows only
the middle part of a message; `...` stands for a name that varies.

The tests try every input on this page. To cover another input, add a row to the table in
`tests/examples/bad_inputs`; `python -m tests.examples.bad_inputs.page` then writes this page.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION]
    for heading, rows in TABLE.items():
        parts.append(f"## {heading}\n")
        refused = [
            (code(shortened(row.line)), row.what) for row in rows if isinstance(row, Refused)
        ]
        if refused:
            parts.append(table(("message", "cause"), grouped(refused)))
        accepted = [(row.rule, row.what) for row in rows if isinstance(row, Accepted)]
        if accepted:
            pairs = [(what, rule) for rule, what in grouped(accepted)]
            parts.append(table(("accepted", "what happens"), pairs))
    return "\n".join(parts)


def shortened(line: str) -> str:
    """Return what is wrong, without the name of the file, details in brackets and the way out."""
    about, _, message = line.removesuffix("...").partition(": ")
    if about.startswith("--"):
        message = f"{about}: {message}"
    for _ in range(2):  # brackets within brackets
        message = re.sub(r" \([^()]*\)", "", message)
    message = message.partition(" (")[0].partition("; ")[0].strip()
    message = re.sub(r"`[^`]+`", "`...`", message)  # names of settings
    return re.sub(r"frame \d+, \w+", "frame ...", message)


def grouped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return each first item once, with all second items that came with it."""
    found: dict[str, list[str]] = {}
    for first, second in pairs:
        found.setdefault(first, []).append(second)
    return [(first, "; ".join(seconds)) for first, seconds in found.items()]


def code(text: str) -> str:
    """Return a line as code, also if there is code in it."""
    return f"`` {text} ``" if "`" in text else f"`{text}`"


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a table of Markdown."""
    lines = [header, ("---",) * len(header), *rows]
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
