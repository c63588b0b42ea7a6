"""The notebook of the tutorial holds what its page holds.

`test_docs.py` runs the code of that page, which is therefore also that of the notebook.
"""

import json
import runpy
from pathlib import Path

from tests.pages import BLOCK, check_output

DOCS = Path(__file__).parents[2] / "docs"
PAGE = DOCS / "tutorial/two_tasks.md"
NOTEBOOK = json.loads(PAGE.with_suffix(".ipynb").read_text(encoding="utf-8"))
CODE_CELLS = [cell for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
TEXT = "\n".join("".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "markdown")

UPDATE = "run `python docs/make_notebook.py`"


def printed_by(cell):
    return "".join(line for output in cell["outputs"] for line in output["text"])


def test_its_code_and_output_are_those_of_the_page():
    blocks = list(BLOCK.finditer(PAGE.read_text(encoding="utf-8")))
    assert len(blocks) == len(CODE_CELLS), UPDATE
    for block, cell in zip(blocks, CODE_CELLS, strict=True):
        assert "".join(cell["source"]) == block["code"].strip("\n"), UPDATE
        check_output(printed_by(cell), block["output"] or "")


def test_its_text_is_that_of_the_page():
    made = runpy.run_path(str(DOCS / "make_notebook.py"))["cells_of"](PAGE)
    assert [cell["source"] for cell in made] == [cell["source"] for cell in NOTEBOOK["cells"]], (
        UPDATE
    )


def test_its_text_shows_no_link_output_or_directive_that_works_on_the_site_alone():
    for mark in ("](", "```", "{download}", "{ref}"):
        assert mark not in TEXT


def test_the_files_that_its_text_names_exist():
    names = [part for part in TEXT.split("`") if part.endswith(".md")]
    assert names
    for name in names:
        assert (DOCS.parent / name).is_file(), name
