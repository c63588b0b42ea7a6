"""Make a Jupyter notebook of a page: its text, its code, and what the code prints.

Run from the root: ``python docs/make_notebook.py``. It also updates the figure of the page.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))  # the package of this working tree, installed or not

PAGE = DOCS / "tutorial/two_tasks.md"
FIGURE = DOCS / "images/two_tasks.png"

CODE = re.compile(r"^```python\n(.*?)^```\n(?:\n*```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
ONLY_ON_THE_SITE = re.compile(r"^(?:\{download\}|!\[).*\n\n", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#]*)[^)]*\)")

Cell = dict[str, Any]


def cells_of(page: Path) -> list[Cell]:
    """Return the text and the code of a page as cells that have not been run."""
    text = ONLY_ON_THE_SITE.sub("", page.read_text(encoding="utf-8"))
    # The pattern has one group, so every second part is the code of a block.
    parts = enumerate(CODE.split(text))
    return [
        code_cell(part) if number % 2 else text_cell(part, page)
        for number, part in parts
        if part.strip()
    ]


def text_cell(text: str, page: Path) -> Cell:
    """Return a cell of Markdown, in which every link becomes the path of a file in the clone."""

    def title_and_path(link: re.Match[str]) -> str:
        path = (page.parent / link[2]).resolve().relative_to(DOCS.parent)
        return f"{link[1]} (`{path.as_posix()}`)"

    source = lines(LINK.sub(title_and_path, text))
    return {"cell_type": "markdown", "metadata": {}, "source": source}


def code_cell(code: str) -> Cell:
    """Return a cell of Python code that has not been run."""
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": lines(code),
    }


def lines(text: str) -> list[str]:
    """Return a text as notebooks store it: a list of lines, each but the last with its end."""
    return text.strip("\n").splitlines(keepends=True)


def run(cells: list[Cell]) -> None:
    """Run the code cells one after another, and store in each what it prints."""
    names: dict[str, Any] = {"__name__": "__main__"}
    code_cells = [cell for cell in cells if cell["cell_type"] == "code"]
    for count, cell in enumerate(code_cells, start=1):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec("".join(cell["source"]), names)  # noqa: S102 - the code of our own page
        cell["execution_count"] = count
        if text := lines(printed.getvalue()):
            cell["outputs"] = [{"name": "stdout", "output_type": "stream", "text": text}]


def notebook_of(cells: list[Cell]) -> dict[str, Any]:
    """Return the notebook, in format 4.5, where every cell has an identifier."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {
        "cells": [{"id": f"cell-{number}", **cell} for number, cell in enumerate(cells)],
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def main() -> None:
    """Write the notebook beside its page, and the figure that the page draws."""
    cells = cells_of(PAGE)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)  # where the code of the page saves its figure
        run(cells)
        FIGURE.write_bytes(Path(FIGURE.name).read_bytes())
        os.chdir(DOCS)
    text = json.dumps(notebook_of(cells), indent=1, ensure_ascii=False) + "\n"
    PAGE.with_suffix(".ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
