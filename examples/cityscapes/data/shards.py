"""A shard: some dozens of resized frames in a folder of plain arrays, written and opened as one.

With a folder for many frames, a split needs only a few dozen memory maps. With some dozens of
frames to a folder, a killed command loses only the frames that it was reading.
"""

import json
import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypedDict

import numpy as np
import torch

from examples.cityscapes.data.augment import Box
from examples.cityscapes.data.files import Frame
from examples.cityscapes.data.sample import RawLabels, Sample, decode, read_raw_labels
from examples.cityscapes.data.shard_arrays import (
    BYTES_PER_PIXEL,
    DTYPES,
    checksum,
    map_array,
    shape_of,
    table_of,
)
from examples.cityscapes.data.targets import Centroids, find_centroids
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError
from examples.common.fingerprint import Fingerprint, fingerprint_of
from examples.common.folders import named_in_errors
from examples.common.json_types import Count, Positive
from examples.common.records import read_object

_INDEX = "frames.json"
_RENEW = "run `prepare` again"
_SHARD_BYTES = 2**24


_ABSENT: Any = None


@dataclass
class SourceFiles:
    """The files that a frame was made from."""

    image: Fingerprint
    label_ids: Fingerprint = _ABSENT
    instance_ids: Fingerprint = _ABSENT
    disparity: Fingerprint = _ABSENT
    camera: Fingerprint = _ABSENT


class _Checked(TypedDict, total=False):
    crc32: Count


class FrameRecord(_Checked):
    """What the index of a shard records of a frame; older copies have no checksums."""

    files: SourceFiles
    num_centroids: Count
    baseline_fx: Positive | None
    factor: Positive


class Index(TypedDict):
    """The index of a shard."""

    bytes: dict[str, Count]
    """Lengths of the other files of the shard, by name."""
    frames: list[FrameRecord]


def frames_per_shard(size: tuple[int, int]) -> int:
    """Return how many frames of a size go together."""
    return min(64, max(1, _SHARD_BYTES // (size[0] * size[1] * BYTES_PER_PIXEL)))


class Shard(NamedTuple):
    """An open shard."""

    arrays: dict[str, np.ndarray]
    centroids: list[Centroids]
    index: list[dict[str, Any]]  # type: ignore[assignment]  # every tuple has such a method

    def read(self, row: int, box: Box | None = None) -> Sample:
        """Return a frame, or a part of it; only that part is read from the disk."""
        where: tuple[Any, ...] = (...,)
        if box is not None:
            where += (slice(box.top, box.top + box.height), slice(box.left, box.left + box.width))

        def take(name: str, dtype: type) -> torch.Tensor:
            # A copy, of 10 microseconds: the map is read-only, and tensors are not.
            return torch.from_numpy(self.arrays[name][row][where].astype(dtype))

        centroids, entry = self.centroids[row], self.index[row]
        if box is not None:
            corner = torch.tensor([box.left, box.top])
            centroids = centroids._replace(xy=centroids.xy - corner)
        baseline_fx = entry["baseline_fx"]
        raw = RawLabels(
            image=take("image", np.uint8),
            semantic=take("semantic", np.uint8),
            instance_ids=take("instance_ids", np.int32),
            raw_disparity=take("raw_disparity", np.int32),
            baseline_fx=math.nan if baseline_fx is None else baseline_fx,
            factor=entry["factor"],
        )
        return decode(raw, centroids)

    def is_whole(self, row: int) -> bool:
        """Return whether a frame's checksum is right; frames of older copies have none, and pass.

        This reads the whole frame, even if only a part of it is needed afterwards.
        """
        entry = self.index[row]
        if "crc32" not in entry:
            return True
        return entry["crc32"] == checksum(self.arrays, row, self.centroids[row], entry)


def write_shard(folder: Path, frames: list[Frame], root: Path, size: tuple[int, int]) -> None:
    """Read frames and write them; the folder appears when it is complete."""
    remove_partial(folder)  # left by a process that was killed
    partial = _partial(folder)
    partial.mkdir(parents=True)
    try:
        index = _write_arrays(partial, frames, root, size)
        lengths = {p.name: p.stat().st_size for p in sorted(partial.glob("*.npy"))}
        write_atomically(partial / _INDEX, json.dumps({"bytes": lengths, "frames": index}))
        if folder.exists():
            shutil.rmtree(folder)  # made from files that have changed since
        partial.rename(folder)
    finally:
        remove_partial(folder)


def remove_partial(folder: Path) -> None:
    """Remove what there is of a shard that is not complete."""
    shutil.rmtree(_partial(folder), ignore_errors=True)


def _partial(folder: Path) -> Path:
    return folder.with_name(folder.name + ".partial")


def _write_arrays(
    folder: Path, frames: list[Frame], root: Path, size: tuple[int, int]
) -> list[dict[str, Any]]:
    arrays = {
        name: np.zeros(shape_of(name, len(frames), size), dtype) for name, dtype in DTYPES.items()
    }
    index, centroids = [], []
    for row, frame in enumerate(frames):
        # Before reading: what changes in between is then noticed later, not missed.
        files = {k: fingerprint_of(p, root) for k, p in frame._asdict().items() if p is not None}
        raw = read_raw_labels(frame, size)
        for name, array in arrays.items():
            array[row] = getattr(raw, name).numpy()
        table = find_centroids(raw.instance_ids)
        centroids.append(table_of(table))
        entry = {
            "files": files,
            "num_centroids": len(table.ids),
            "baseline_fx": None if math.isnan(raw.baseline_fx) else raw.baseline_fx,
            "factor": raw.factor,
        }
        index.append({**entry, "crc32": checksum(arrays, row, table, entry)})
    arrays["centroids"] = np.concatenate(centroids)
    for name, array in arrays.items():
        path = folder / f"{name}.npy"
        with named_in_errors(path):
            np.save(path, array, allow_pickle=False)
    return index


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Return what a shard records of its frames.

    Raises:
        InputError: If the shard is absent or incomplete, or a number is out of its range.
    """
    recorded = read_object(folder / _INDEX, Index, _RENEW)
    for name, length in recorded["bytes"].items():
        path = folder / name
        found = path.stat().st_size if path.is_file() else 0
        if found != length:
            raise InputError(f"{path}: should have {length} bytes; found {found}; {_RENEW}")
    return recorded["frames"]


def open_shard(folder: Path, size: tuple[int, int]) -> Shard:
    """Map the arrays of a shard into memory.

    Raises:
        InputError: If the shard is absent or incomplete, or an array is of another kind.
    """
    index = read_index(folder)
    counts = [entry["num_centroids"] for entry in index]
    arrays = {
        name: map_array(folder / f"{name}.npy", dtype, shape_of(name, len(index), size))
        for name, dtype in DTYPES.items()
    }
    table = np.array(map_array(folder / "centroids.npy", "<f8", (sum(counts), 3)))
    with np.errstate(all="ignore"):  # damaged; the checksums tell
        ids = torch.from_numpy(table[:, 0].astype(np.int32))
        xy = torch.from_numpy(table[:, 1:].astype(np.float32))
    centroids = [Centroids(*pair) for pair in zip(ids.split(counts), xy.split(counts), strict=True)]
    return Shard(arrays, centroids, index)
