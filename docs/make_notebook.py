"""Make a Jupyter notebook of a page: its text, its code, and the output that the page shows.

The tests run the page and compare what it prints. Run from the root:
``python docs/make_notebook.py``.
"""

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "tutorial/two_tasks.md"

BLOCK = re.compile(
    r"^```python\n(?P<code>.*?)^```\n(?:\n*```text\n(?P<output>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
ONLY_ON_THE_SITE = re.compile(r"^(?:\{download\}|!\[).*\n\n", re.MULTILINE)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#]*)[^)]*\)")

Cell = dict[str, Any]


def cells_of(page: Path) -> list[Cell]:
    """Return the text and the code of a page as cells, with the output that it shows."""
    text = ONLY_ON_THE_SITE.sub("", page.read_text(encoding="utf-8"))
    cells: list[Cell] = []
    end = count = 0
    for count, block in enumerate(BLOCK.finditer(text), start=1):
        cells += text_cells(text[end : block.start()], page)
        cells.append(code_cell(block["code"], block["output"], count))
        end = block.end()
    return cells + text_cells(text[end:], page)


def text_cells(text: str, page: Path) -> list[Cell]:
    """Return a cell of Markdown, in which every link becomes the path of a file in the clone."""

    def title_and_path(link: re.Match[str]) -> str:
        path = (page.parent / link[2]).resolve().relative_to(DOCS.parent)
        return f"{link[1]} (`{path.as_posix()}`)"

    source = lines(LINK.sub(title_and_path, text))
    return [{"cell_type": "markdown", "metadata": {}, "source": source}] if source else []


def code_cell(code: str, output: str | None, count: int) -> Cell:
    """Return a cell of Python code with what it printed."""
    stream = {"name": "stdout", "output_type": "stream", "text": lines(output or "")}
    return {
        "cell_type": "code",
        "execution_count": count,
        "metadata": {},
        "outputs": [stream] if output else [],
        "source": lines(code),
    }


def lines(text: str) -> list[str]:
    """Return a text as notebooks store it: a list of lines, each but the last with its end."""
    return text.strip("\n").splitlines(keepends=True)


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
    """Write the notebook beside its page."""
    text = json.dumps(notebook_of(cells_of(PAGE)), indent=1, ensure_ascii=False) + "\n"
    PAGE.with_suffix(".ipynb").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
