"""Settings and logs: what a reader says of any damage to them."""

import copy
import dataclasses
import json
import math
import re
import shutil
from pathlib import Path
from typing import Literal, TypedDict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from examples.cityscapes.__main__ import main
from examples.cityscapes.experiments.runs import read_result
from examples.common.errors import InputError
from examples.common.json_types import Count, Positive
from examples.common.records import read_lines, read_object
from tests.examples.bad_inputs.row import TRAIN
from tests.examples.tiny_tree import write_tree

FEW = settings(
    max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
"""Few examples, as a command that is not stopped by the damage takes a second."""

VALUES = [None, True, -1, 0, 1.5, math.nan, math.inf, 10**15, 10**400, "x", "", [], [1], {}]

READERS = {
    "run/config.json": "report --run run",
    "run/metrics.jsonl": "report --run run",
    "run/validation.jsonl": "train --out run --resume",
    "run/metrics.json": "report --run run",
    "copy/manifest.json": TRAIN.replace("scenes", "copy"),
    "copy/train/00000/frames.json": TRAIN.replace("scenes", "copy"),
}
"""For each file, a command that reads it."""


# Any damage


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_tree(folder / "scenes", train=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (
            "prepare --data scenes --out copy --size 16x32",
            f"{TRAIN} --out run",
            "evaluate --run run --data scenes --device cpu",
        ):
            assert main(command.split()) == 0
    return folder


@st.composite
def damaged(draw, content: bytes, is_log: bool) -> bytes:
    """Return the content with one value changed or dropped, cut off, or with a bit flipped."""
    kind = draw(st.sampled_from(["change", "change", "drop", "cut", "flip"]))
    if kind == "cut":
        return content[: draw(st.integers(0, len(content) - 1))]
    if kind == "flip":
        flipped, place = bytearray(content), draw(st.integers(0, 8 * len(content) - 1))
        flipped[place // 8] ^= 1 << place % 8
        return bytes(flipped)
    lines = content.splitlines() if is_log else [content]
    number = draw(st.integers(0, len(lines) - 1))
    value = json.loads(lines[number])
    keys = draw(st.sampled_from([keys for keys in places(value) if keys]))
    inner = value
    for key in keys[:-1]:
        inner = inner[key]
    if kind == "drop":
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = copy.copy(draw(st.sampled_from(VALUES)))
    lines[number] = json.dumps(value).encode()
    return b"\n".join(lines) + b"\n"


def places(value, keys=()):
    """Yield the keys that lead to every part of a value."""
    yield keys
    parts = enumerate(value) if isinstance(value, list) else ()
    for key, part in value.items() if isinstance(value, dict) else parts:
        yield from places(part, (*keys, key))


@pytest.mark.parametrize("file", READERS)
@FEW
@given(data=st.data())
def test_a_command_uses_a_damaged_file_or_says_so_in_one_line(
    file, data, whole, tmp_path, monkeypatch, capsys
):
    here = tmp_path / "here"
    shutil.rmtree(here, ignore_errors=True)
    shutil.copytree(whole, here, symlinks=True)
    monkeypatch.chdir(here)
    path = here / file
    path.write_bytes(data.draw(damaged(path.read_bytes(), file.endswith(".jsonl"))))
    capsys.readouterr()
    status = main(READERS[file].split())
    printed = capsys.readouterr().err.splitlines()
    said = [line for line in printed if line.startswith(("error:", "warning:"))]
    if status:
        assert status == 2
        assert [line.startswith("error:") for line in said] == [True]
        # The file itself, or the folder whose content it tells of.
        assert str(Path(file).parent) in said[0]
    assert len(said) <= 1


FIGURES_OF_A_RUN = {
    "figures": {
        "semantic_iou": 0.5,
        "semantic_iou_present": 0.6,
        "instance_error_px": None,
        "depth_error_px": 0.1,
    },
    "num_images": 2,
    "seconds": None,
    "setup": {"hardware": "a processor", "cores": 2},
}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_figures_of_an_experiment_are_read_or_refused(data, tmp_path):
    content = json.dumps(FIGURES_OF_A_RUN).encode()
    path = tmp_path / "figures.json"
    path.write_bytes(data.draw(damaged(content, is_log=False)))
    try:
        found = set(read_result(tmp_path))
    except InputError as error:
        said = re.fullmatch(r".*figures\.json: .*; delete it to measure again", str(error))
    else:
        said = found >= set(FIGURES_OF_A_RUN)
    assert said


# Types


class Inner(TypedDict):
    """An object with two fields that it must have."""

    count: Count
    kind: Literal["a", "b"]


@dataclasses.dataclass
class Closed:
    """An object that knows all of its fields, of which one may be left out."""

    scale: Positive
    path: Path = Path()


class Record(TypedDict, total=False):
    """Fields of every type, all of which may be left out."""

    flag: bool
    number: float
    whole: int
    items: list[Inner]
    pair: tuple[int, str]
    many: tuple[int, ...]
    table: dict[str, Closed]
    either: str | None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"flag": 1}, "`flag` should be true or false; found 1"),
        ({"number": True}, "`number` should be a finite number; found true"),
        ({"number": math.inf}, "`number` should be a finite number; found Infinity"),
        ({"number": 10**400}, f"`number` should be a finite number; found 1{'0' * 39}..."),
        ({"whole": 1.0}, "`whole` should be a whole number; found 1.0"),
        ({"whole": 2**63}, f"`whole` should be a whole number; found {2**63}"),
        ({"items": [{"count": 1, "kind": "a"}, {"kind": "a"}]}, "`items[1].count` is missing"),
        ({"items": [{"count": -1, "kind": "a"}]}, "should be a whole number from 0 up; found -1"),
        (
            {"items": [{"count": 0, "kind": []}]},
            "`items[0].kind` should be one of a, b; found a list",
        ),
        ({"pair": [1]}, "`pair` should be a list of 2; found a list of 1"),
        ({"pair": [1, 2]}, "`pair[1]` should be a text; found 2"),
        ({"many": [1, None]}, "`many[1]` should be a whole number; found null"),
        ({"many": {}}, "`many` should be a list; found an object"),
        ({"table": {"x": {"scale": 0}}}, "`table.x.scale` should be a finite number above 0"),
        ({"table": {"x": {"scale": 1, "z": 1}}}, "`table.x.z` is not known to this version"),
        ({"table": {"x": {"scale": 1, "path": "\0"}}}, "`table.x.path` should be a path; found"),
        ({"either": 1}, "`either` should be a text; found 1"),
        ([], "should be an object; found a list of 0"),
    ],
)
def test_a_field_of_another_type_is_named_with_what_it_should_be(content, reason, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError) as caught:
        read_object(path, Record, "mend it")
    assert str(caught.value).startswith(f"{path}: ")
    assert reason in str(caught.value)
    assert str(caught.value).endswith("; mend it")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"flag": False, "number": 1, "whole": -1, "either": None},
        {"items": [], "pair": [1, "x"], "many": [1, 2, 3], "of a later version": 1},
        {"table": {"x": {"scale": 1e-9}, "y": {"scale": 1, "path": "a/b"}}},
    ],
)
def test_a_record_of_the_right_types_is_returned_as_it_is(content, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(content))
    assert read_object(path, Record, "mend it") == content


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"x\.json: cannot be read \(No such file or directory\)"):
        read_object(tmp_path / "x.json", Record, "mend it")


# Logs


def test_only_a_last_line_without_an_end_is_passed_over_in_silence(tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"number": 1}\n{"number": 2}\n{"num')
    assert read_lines(path, Record) == [{"number": 1}, {"number": 2}]
    path.write_bytes(b'{"number": 1}\n{"num\n\xff\n{"number": 4}\n')
    with pytest.raises(InputError, match=r"log\.jsonl, line 2: is not readable as JSON .*; delete"):
        read_lines(path, Record)
    assert capsys.readouterr().err == ""
    assert read_lines(path, Record, on_damage="warn") == [{"number": 1}, {"number": 4}]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"warning: {path}, line 2: is not readable as JSON")
    assert line.endswith("; this line is left out, and so is another damaged line")
    assert len(read_lines(path, Record, on_damage="skip")) == 2
    assert capsys.readouterr().err == ""
    assert read_lines(tmp_path / "absent.jsonl", Record) == []
