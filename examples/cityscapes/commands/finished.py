"""A record of the images already predicted, so that a repeated command continues from there."""

import json
from pathlib import Path, PurePath
from typing import Any, TypedDict

from examples.common.checkpoint import write_atomically
from examples.common.folders import named_in_errors
from examples.common.records import read_lines

RECORD = "predictions.jsonl"


class FinishedImage(TypedDict):
    """A line of the record."""

    name: str
    files: list[str]
    source: dict[str, Any]


class FinishedImages:
    """The images whose predictions are complete, as a file in the folder of the predictions.

    The file has one line per image: the names of its predictions, and what they were made from. A
    line is valid as long as those files exist, the image has the same path, size and modification
    time, and `maker` is the same. A line that cannot be read is ignored.

    Args:
        out: The folder.
        maker: A text that changes with everything that affects the predictions.
    """

    def __init__(self, out: Path, maker: str) -> None:
        self._out, self._maker = out, maker
        self._source: dict[PurePath, dict[str, Any]] = {}

    def begin(self, images: dict[PurePath, Path]) -> dict[PurePath, list[Path]]:
        """Return the files of the finished images; delete the lines of the unfinished ones.

        The files of the unfinished ones are about to be replaced, so no line may vouch for them.
        """
        self._source = {name: self._source_of(path) for name, path in images.items()}
        recorded = read_lines(self._out / RECORD, FinishedImage, on_damage="skip")
        lines = {line["name"]: line for line in recorded}
        finished = {}
        for name, source in self._source.items():
            line = lines.pop(name.as_posix(), None)
            if line is not None and line["source"] == source:
                files = [self._out / file for file in line["files"]]
                if all(file.is_file() for file in files):
                    finished[name] = files
        if (self._out / RECORD).exists():
            kept = [*lines.values(), *(self._line(*item) for item in finished.items())]
            write_atomically(self._out / RECORD, "".join(map(_text, kept)))
        return finished

    def add(self, name: PurePath, files: list[Path]) -> None:
        """Note that the predictions for an image are complete."""
        path = self._out / RECORD
        with named_in_errors(path), path.open("a", encoding="utf-8") as file:
            file.write(_text(self._line(name, files)))

    def _line(self, name: PurePath, files: list[Path]) -> dict[str, Any]:
        names = [file.relative_to(self._out).as_posix() for file in files]
        return {"name": name.as_posix(), "files": names, "source": self._source[name]}

    def _source_of(self, image: Path) -> dict[str, Any]:
        status = image.stat()
        return {
            "image": str(image.absolute()),
            "bytes": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "maker": self._maker,
        }


def _text(line: dict[str, Any]) -> str:
    return json.dumps(line) + "\n"
