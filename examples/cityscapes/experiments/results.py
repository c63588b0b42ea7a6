"""Means and spreads over seeds, and tables of them."""

import csv
import io
from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any, NamedTuple

FIGURES = {
    "semantic_iou": "IoU, %",
    "semantic_iou_present": "IoU of classes present, %",
    "instance_error_px": "offset error, px",
    "depth_error_px": "depth error, px",
}
"""What the tables show, by the names in metrics.json."""


class Summary(NamedTuple):
    """Some numbers in short."""

    mean: float | None
    """The mean; None if there are no numbers."""
    spread: float | None
    """The sample standard deviation, whose denominator is n - 1; None for fewer than two."""
    num_values: int


def summarize(values: Iterable[float | None]) -> Summary:
    """Return mean and spread of the values that are known."""
    known = [value for value in values if value is not None]
    return Summary(
        fmean(known) if known else None, stdev(known) if len(known) > 1 else None, len(known)
    )


def in_table_units(figure: str, value: float | None) -> float | None:
    """Turn a fraction into percent, as tables print IoU."""
    return 100 * value if value is not None and figure.startswith("semantic") else value


def summaries(results: Sequence[dict[str, Any]]) -> dict[str, Summary]:
    """Return the figures of the runs of one training, in the units of the tables."""
    return {
        figure: summarize(in_table_units(figure, result["figures"][figure]) for result in results)
        for figure in FIGURES
    }


def cell(numbers: tuple[float | None, float | None, int], digits: int) -> str:
    """Return what a table shows of a mean, its spread and the number of values: `mean ± spread`."""
    mean, spread, _ = numbers
    if mean is None:
        return ""
    # Adding 0 turns the -0.0 that a mean of rounding errors may leave into 0.0.
    text = f"{round(mean, digits) + 0.0:.{digits}f}"
    return text if spread is None else f"{text} ± {spread:.{digits}f}"


def digits_of(figure: str) -> int:
    """Return how many decimals the paper prints, and one more of the errors."""
    return {"semantic_iou": 1, "semantic_iou_present": 1, "instance_error_px": 2}.get(figure, 3)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for people."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def csv_text(rows: Sequence[dict[str, Any]]) -> str:
    """Return a table for programs; an unknown value is empty."""
    text = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def flat(name: str, summary: Summary) -> dict[str, float | None]:
    """Return a summary as columns of a CSV file."""
    return {
        f"{name}_mean": summary.mean,
        f"{name}_std": summary.spread,
        f"{name}_n": summary.num_values,
    }
