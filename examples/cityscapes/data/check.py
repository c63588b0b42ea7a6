"""All problems of a dataset in one go, before hours of training meet the first of them."""

import argparse
import sys
from pathlib import Path

from examples.cityscapes.data.arrays import check_fine, is_array_tree
from examples.cityscapes.data.check_arrays import check_arrays
from examples.cityscapes.data.check_copy import check_copy
from examples.cityscapes.data.check_tree import check_tree
from examples.cityscapes.data.files import FINE
from examples.cityscapes.data.prepared import is_prepared
from examples.cityscapes.data.problems import Problems
from examples.cityscapes.settings import LABELS
from examples.common.command_line import positive_number
from examples.common.errors import InputError


def check(data: Path, labels: str = FINE) -> tuple[list[str], Problems]:
    """Return what a dataset holds, a line for each split, and all that is wrong with it.

    Args:
        data: Dataset in the official layout, a prepared copy, or the arrays of other papers.
        labels: Labels of the training images in the official layout: `gtFine` or `gtCoarse`.
    """
    if not data.is_dir():
        raise InputError(f"{data}: no such folder")
    problems = Problems()
    if is_prepared(data):
        return check_copy(data, problems), problems
    if is_array_tree(data):
        check_fine(data, labels)
        return check_arrays(data, problems), problems
    return check_tree(data, problems, labels), problems


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="dataset: official files, a copy, arrays")
    add("--labels", choices=LABELS, default=FINE, help="labels of the training images (gtFine)")
    text = "how many problems of each kind to list (10)"
    add("--show", type=positive_number, default=10, metavar="N", help=text)


def run(data: Path, labels: str, show: int) -> None:
    """Print what a dataset holds and what is wrong; exits with status 1 if anything is."""
    lines, problems = check(data, labels)
    print(*lines, *problems.report(show), sep="\n")
    if problems:
        print(f"{data}: {len(problems)} problems")
        sys.exit(1)
    print(f"{data}: no problems")
