"""Writes the documentation's page of the table: `python -m tests.examples.bad_inputs.page`."""

from pathlib import Path

from tests.examples.bad_inputs import TABLE
from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused

PAGE = Path(__file__).parents[3] / "docs" / "examples" / "cityscapes_inputs.md"

INTRODUCTION = """\
# What it accepts and what it refuses

A command of the street-scene example that cannot use an input prints one line, which begins with
`error:`, and ends with status 2. What was computed before is kept, and no half-written file is
left. Below are the inputs that the tests try, with the lines; `...` stands for what varies.
`scenes` is a dataset in the official layout, `copy` what `prepare` made of it, `run` the folder
of a run, and `photos` a folder of images.

This page is generated from the table in `tests/examples/bad_inputs`. To cover another input, add
a row there.
"""


def page() -> str:
    """Return the text of the page."""
    parts = [INTRODUCTION]
    for heading, rows in TABLE.items():
        parts.append(f"## {heading}\n")
        refused = [row for row in rows if isinstance(row, Refused)]
        if refused:
            cells = [(row.what, f"`{name_of(row)}`", code(row.line)) for row in refused]
            parts.append(table(("refused", "command", "the line"), cells))
        accepted = [row for row in rows if isinstance(row, Accepted)]
        if accepted:
            parts.append(table(("accepted", "rule"), [(row.what, row.rule) for row in accepted]))
    return "\n".join(parts)


def name_of(row: Refused) -> str:
    """Return a command without the options that every row has."""
    return row.command.replace(TRAIN, "train").partition(" ")[0]


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
