"""Rows about prepared copies."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from examples.cityscapes.data.files import FINE
from examples.cityscapes.data.prepared import PreparedSplit
from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused
from tests.examples.bad_inputs.spoil_runs import flip, has_trained

ON_COPY = f"{TRAIN} --data copy"
FRAMES = Path("copy/train/00000/frames.json")


def swap_rows() -> None:
    """Let two images change places."""
    path = Path("copy/train/00000/image.npy")
    images = np.load(path)
    np.save(path, images[[1, 0, 2, 3]])


def other_type() -> None:
    """Write an array of as many bytes in another type."""
    path = Path("copy/train/00000/semantic.npy")
    np.save(path, np.load(path).view("i1"))


def in_index(name: str, value: float) -> Callable[[], None]:
    """Return what changes a number of the third frame."""

    def spoil() -> None:
        index = json.loads(FRAMES.read_text())
        index["frames"][2][name] = value
        FRAMES.write_text(json.dumps(index))

    return spoil


def forget_checksums() -> None:
    """Make an index as older versions wrote it."""
    index = json.loads(FRAMES.read_text())
    for entry in index["frames"]:
        del entry["crc32"]
    FRAMES.write_text(json.dumps(index))


def copy_is_whole() -> None:
    """Assert that every frame of the copy is what was written."""
    split = PreparedSplit(Path("copy"), "train", (16, 32), (), FINE)
    assert len([split.read(index) for index in range(4)]) == 4


COPIES: list[Refused | Accepted] = [
    Refused(
        what="a prepared image with one flipped bit",
        spoil=lambda: flip("copy/train/00000/image.npy", 0.9),
        command=ON_COPY,
        line="copy/train/00000: frame 3, town_000003_000000, has changed since it was written; "
        "run `prepare` again",
    ),
    Refused(
        what="a prepared copy with one flipped bit in the centre of an instance",
        spoil=lambda: flip("copy/train/00000/centroids.npy", 0.999),
        command=ON_COPY,
        line="copy/train/00000: frame 3, town_000003_000000, has changed since it was written; "
        "run `prepare` again",
    ),
    Refused(
        what="prepared images that have changed places",
        spoil=swap_rows,
        command=ON_COPY,
        line="copy/train/00000: frame 0, town_000000_000000, has changed since it was written; "
        "run `prepare` again",
    ),
    Refused(
        what="a prepared array of another type",
        spoil=other_type,
        command=ON_COPY,
        line="copy/train/00000/semantic.npy: should be an array of type u1 and shape (4, 16, 32); "
        "found |i1 and (4, 16, 32); run `prepare` again",
    ),
    Refused(
        what="a prepared frame whose original is -1 times as wide",
        spoil=in_index("factor", -1.0),
        command=ON_COPY,
        line="copy/train/00000/frames.json: `frames[2].factor` should be a finite number above 0; "
        "found -1.0; run `prepare` again",
    ),
    Refused(
        what="a prepared frame whose cameras are infinitely far apart",
        spoil=in_index("baseline_fx", float("inf")),
        command=ON_COPY,
        line="copy/train/00000/frames.json: `frames[2].baseline_fx` should be a finite number "
        "above 0; found Infinity; run `prepare` again",
    ),
    Refused(
        what="a prepared frame whose original is twice as wide as it was",
        spoil=in_index("factor", 2.0),
        command=ON_COPY,
        line="copy/train/00000: frame 2, town_000002_000000, has changed since it was written; "
        "run `prepare` again",
    ),
    Accepted(
        what="preparing a copy with one flipped bit again",
        spoil=lambda: flip("copy/train/00000/image.npy", 0.9),
        command="prepare --data scenes --out copy --size 16x32 --workers 1",
        rule="Its part of the copy is written again.",
        check=copy_is_whole,
    ),
    Accepted(
        what="a prepared copy of an older version, without checksums",
        spoil=forget_checksums,
        command=ON_COPY,
        rule="It is read without being checked.",
        check=has_trained(),
    ),
]
