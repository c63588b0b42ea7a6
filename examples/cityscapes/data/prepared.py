"""Reading a dataset that `prepare` has written."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, TypedDict

from examples.cityscapes.data.arrays import is_array_tree
from examples.cityscapes.data.augment import Box
from examples.cityscapes.data.files import FINE, Frame
from examples.cityscapes.data.sample import Sample
from examples.cityscapes.data.shards import Shard, open_shard, read_index
from examples.cityscapes.protocols import THREE_TASK
from examples.common.errors import InputError
from examples.common.fingerprint import is_unchanged
from examples.common.json_types import PositiveInt
from examples.common.records import read_object

MANIFEST = "manifest.json"
FORMAT = 1

_OPEN_SHARDS = 64  # each is four memory maps, and a process may have about a thousand open files


def is_prepared(root: Path) -> bool:
    """Whether a folder was written by `prepare`; other data may have a manifest.json as well."""
    is_original = (root / "leftImg8bit").is_dir() or is_array_tree(root)
    return (root / MANIFEST).is_file() and not is_original


class _Choices(TypedDict, total=False):
    labels: Literal["gtFine", "gtCoarse"]


class Manifest(_Choices):
    """The settings of a prepared dataset; old ones have no choices."""

    format: Literal[1]
    source: Path
    size: tuple[PositiveInt, PositiveInt]
    per_shard: PositiveInt
    splits: dict[str, PositiveInt]
    """Frames by split."""
    complete: bool


def read_manifest(root: Path) -> dict[str, Any]:
    """Return how a dataset was prepared, how many frames each split has, and if it is complete."""
    manifest = read_recorded(root)
    manifest["size"] = tuple(manifest["size"])
    manifest["source"] = Path(manifest["source"])
    manifest.setdefault("labels", FINE)  # copies made before there was a choice
    names = ("source", "size", "labels", "per_shard", "splits", "complete")
    return {name: manifest[name] for name in names}


def read_recorded(root: Path) -> dict[str, Any]:
    """Return the manifest of a prepared dataset as it was written."""
    # Not "delete it": the folder may hold something else than a copy.
    return read_object(root / MANIFEST, Manifest, "run `prepare` again, with another --out")


def shard_folders(
    root: Path, split: str, num_frames: int, per_shard: int
) -> Iterator[tuple[Path, int]]:
    """Yield the folders of a split, in order, and how many frames each has."""
    for number, first in enumerate(range(0, num_frames, per_shard)):
        yield root / split / f"{number:05d}", min(per_shard, num_frames - first)


def changed_file(source: Path, files: dict[str, Any]) -> Path | None:
    """Return the first of the files of a frame that has changed since it was recorded, or None.

    A file that is gone is skipped: the copy that was prepared from it does not need it.
    """
    for facts in files.values():
        path = source / facts["path"]
        try:
            if not is_unchanged(path, facts):
                return path
        except (FileNotFoundError, NotADirectoryError):
            continue
    return None


class PreparedSplit:
    """The frames of one split, at the size that they were prepared for.

    Args:
        root: Folder that `prepare` has written.
        split: `train` or `val`.
        size: Height and width; those of the prepared images.
        tasks: Decides which labels a frame must have.
        labels: `gtFine` or `gtCoarse`; for training, what the copy was prepared with.

    Raises:
        InputError: If the folder is incomplete or made for another size or other labels, or if its
            source is there and has changed.
    """

    protocol = THREE_TASK
    """The protocol whose labels the samples have."""

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int],
        tasks: Iterable[str],
        labels: str,
    ) -> None:
        manifest = read_manifest(root)
        if not manifest["complete"]:
            raise InputError(f"{root}: not completely prepared; run `prepare` again to finish it")
        if manifest["size"] != tuple(size):
            found, wanted = ("x".join(map(str, both)) for both in (manifest["size"], size))
            raise InputError(f"{root}: was prepared with --size {found}, not {wanted}")
        if split == "train" and manifest["labels"] != labels:
            raise InputError(
                f"{root}: was prepared with --labels {manifest['labels']}, not {labels}"
            )
        if split not in manifest["splits"]:
            raise InputError(f"{root}: prepared from a dataset without images for {split!r}")
        self._per_shard = manifest["per_shard"]
        self._size = manifest["size"]
        self._folders: list[Path] = []
        self._shards: dict[int, Shard] = {}
        self._whole: set[int] = set()
        self.frames: list[Frame] = []
        # One by one, as a damaged manifest may ask for more folders than any disk holds.
        num_frames = manifest["splits"][split]
        for folder, count in shard_folders(root, split, num_frames, self._per_shard):
            self._folders.append(folder)
            entries = read_index(folder)
            if len(entries) != count:
                raise InputError(
                    f"{folder}: should hold {count} frames by {root / MANIFEST}; found "
                    f"{len(entries)}; run `prepare` again"
                )
            for entry in entries:
                files = entry["files"]
                if changed := changed_file(manifest["source"], files):
                    raise InputError(
                        f"{changed}: has changed since {folder} was prepared from it; "
                        "run `prepare` again"
                    )
                frame = _frame(manifest["source"], files)
                if "instance" in tasks and frame.instance_ids is None:
                    raise InputError(
                        f"{folder}: {frame.stem} was prepared without instanceIds; run `prepare` "
                        "again, or --tasks semantic,depth"
                    )
                self.frames.append(frame)

    def read(self, index: int, box: Box | None = None) -> Sample:
        """Return a frame, or a part of it."""
        number, row = divmod(index, self._per_shard)
        if number not in self._shards:
            if len(self._shards) >= _OPEN_SHARDS:
                self._shards.pop(next(iter(self._shards)))
            self._shards[number] = open_shard(self._folders[number], self._size)
        shard = self._shards[number]
        # Check a frame at its first read only: the check takes about as long as the read.
        if index not in self._whole:
            if not shard.is_whole(row):
                raise InputError(
                    f"{self._folders[number]}: frame {row}, {self.frames[index].stem}, has changed "
                    "since it was written; run `prepare` again"
                )
            self._whole.add(index)
        return shard.read(row, box)

    def __getstate__(self) -> dict[str, Any]:
        # A worker process opens the maps itself; pickling them would copy all of their data.
        return {**vars(self), "_shards": {}}


def _frame(source: Path, files: dict[str, Any]) -> Frame:
    absent = dict.fromkeys(Frame._fields)
    return Frame(**{**absent, **{name: source / facts["path"] for name, facts in files.items()}})
