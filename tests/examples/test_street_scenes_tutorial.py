"""The commands of the tutorial, in its order, at their smallest size."""

import re
import shlex
from pathlib import Path

import pytest

from examples.cityscapes.__main__ import main

PAGE = Path(__file__).parents[2] / "docs" / "tutorial" / "street_scenes.md"
SMALLER = {"1500": "8", "60": "2", "64x128": "32x64"}


@pytest.fixture
def commands():
    text = PAGE.read_text().replace("\\\n", "")  # a command may go on in the next line
    found = re.findall(r"^python -m examples\.cityscapes (.*)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


def test_every_step_runs_on_what_the_step_before_it_wrote(commands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = []
    for command in commands:
        arguments = [SMALLER.get(argument, argument) for argument in command]
        if arguments[0] == "demo":  # has a test of its own
            continue
        if arguments[0] == "train":
            arguments += ["--iterations", "2"]
        if "PATH" in arguments:
            image = next(Path("scenes/leftImg8bit/val").rglob("*.png"))
            arguments[arguments.index("PATH")] = str(image)
        assert main(arguments) == 0
        ran.append(arguments[0])
    assert ran == ["synthesize", "train", "evaluate", "predict"]
    assert list(Path("predictions").glob("*_panels.png"))
