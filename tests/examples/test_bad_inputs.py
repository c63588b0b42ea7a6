"""Each row of the table of bad inputs: the command prints that line, or follows that rule."""

import re
import shutil
from pathlib import Path

import pytest

from examples.cityscapes.__main__ import main
from tests.examples.bad_inputs import TABLE
from tests.examples.bad_inputs.page import PAGE, page
from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused
from tests.examples.tiny_tree import write_tree

ROWS = [row for rows in TABLE.values() for row in rows]


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory):
    """Everything that a row may spoil, still whole."""
    folder = tmp_path_factory.mktemp("good")
    write_tree(folder / "scenes", train=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert status("prepare --data scenes --out copy --size 16x32") == 0
        assert status(f"{TRAIN} --out run") == 0
        assert status("evaluate --run run --data scenes --device cpu") == 0
    images = sorted((folder / "scenes/leftImg8bit/train").rglob("*.png"))
    (folder / "photos").mkdir()
    for name, image in zip("abc", images, strict=False):
        shutil.copy(image, folder / f"photos/{name}.png")
    return folder


@pytest.fixture
def here(good_folder, tmp_path, monkeypatch):
    """A copy to spoil, as the current folder."""
    shutil.copytree(good_folder, tmp_path / "here", symlinks=True)
    monkeypatch.chdir(tmp_path / "here")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.what)
@pytest.mark.usefixtures("here")
def test_an_input_is_refused_or_accepted_as_the_table_says(row, capsys):
    row.spoil()
    before = contents()
    capsys.readouterr()
    found = status(row.command)
    printed = capsys.readouterr().err
    if isinstance(row, Accepted):
        assert found == 0, printed
        row.check()
        return
    lines = [line for line in printed.splitlines() if "image/s]" not in line]
    assert found == 2, printed
    assert len(lines) == 1, printed
    pattern = ".*".join(map(re.escape, row.line.split("...")))
    assert re.fullmatch(f"error: {pattern}", lines[0]), lines[0]
    assert not [name for name in contents() - before if name.endswith(".partial")]


def contents() -> set[str]:
    """Return the files below the current folder."""
    return {str(path) for path in Path().rglob("*")}


def status(command: str) -> int:
    """Run a command and return its exit status, also if argparse exits."""
    try:
        return main(command.split())
    except SystemExit as error:
        return error.code


def test_each_row_is_there_once():
    assert len({row.what for row in ROWS}) == len(ROWS)
    assert all(isinstance(row, Refused | Accepted) for row in ROWS)


def test_the_page_of_the_documentation_is_that_of_the_table():
    """`python -m tests.examples.bad_inputs.page` writes it."""
    assert PAGE.read_text(encoding="utf-8") == page()
