"""Writing a resized copy of a dataset that trains without decoding a single image."""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

from tqdm import tqdm

from examples.cityscapes.data.files import FINE, Frame, list_images
from examples.cityscapes.data.prepared import (
    FORMAT,
    MANIFEST,
    changed_file,
    is_prepared,
    read_manifest,
    read_recorded,
    shard_folders,
)
from examples.cityscapes.data.shards import frames_per_shard, open_shard
from examples.cityscapes.data.splits import RawSplit
from examples.cityscapes.data.write_shards import Job, write_shards
from examples.cityscapes.settings import LABELS
from examples.common.checkpoint import write_atomically
from examples.common.command_line import height_and_width, positive_number
from examples.common.errors import InputError
from examples.common.listing import entries
from examples.common.lock import locked

SPLITS = ("train", "val")


def prepare(
    data: Path,
    out: Path,
    size: tuple[int, int],
    *,
    labels: str = FINE,
    limit: int | None = None,
    workers: int | None = None,
    per_shard: int | None = None,
) -> dict[str, int]:
    """Write a copy of the `train` and `val` splits at `size`, or finish or renew an earlier one.

    Shards that exist and still match their source are kept. A killed command thus continues where
    it stopped, and a changed file costs only the shard that it belongs to.

    Args:
        data: Dataset in the official layout.
        out: Folder of the copy.
        size: Height and width of the copy, of the same shape as the images.
        labels: Labels of the training images: `gtFine` or `gtCoarse`.
        limit: How many images of each split are copied, the first by name; None: all.
        workers: Processes that decode; by default one per core.
        per_shard: Frames that are written together.

    Returns:
        The number of frames by split.

    Raises:
        InputError: If an input is missing or broken. Complete shards remain.
    """
    if is_prepared(data):
        raise InputError(f"--data: {data} is a prepared dataset already")
    per_shard = per_shard or frames_per_shard(size)
    tasks = ("semantic", "depth")  # without instances, if there are none
    frames = {"train": RawSplit(data, "train", size, tasks, labels).frames[:limit]}
    if list_images(data, "val"):
        frames["val"] = RawSplit(data, "val", size, tasks).frames[:limit]
    _check_out(out, size, labels)
    settings: dict[str, Any] = {
        "format": FORMAT,
        "source": str(data.resolve()),
        "size": list(size),
        "labels": labels,
        "per_shard": per_shard,
        "splits": {split: len(of_split) for split, of_split in frames.items()},
    }
    jobs = [job for split in frames for job in _jobs(out, split, frames[split], per_shard)]
    todo = [
        (folder, of_shard)
        for folder, of_shard in jobs
        if not _is_done(folder, of_shard, data, size)
    ]
    if not todo and is_prepared(out) and read_recorded(out) == {**settings, "complete": True}:
        return settings["splits"]

    out.mkdir(parents=True, exist_ok=True)
    _write_manifest(out, {**settings, "complete": False})
    _remove_all_but([folder for folder, _ in jobs], out)
    total = sum(settings["splits"].values())
    done = total - sum(len(of_shard) for _, of_shard in todo)
    # The bar shows on terminals only: elsewhere, an error should be the only line printed.
    with tqdm(desc="preparing", total=total, initial=done, unit="image", disable=None) as bar:
        for written in write_shards(todo, data, size, workers or os.cpu_count() or 1):
            bar.update(written)
    _write_manifest(out, {**settings, "complete": True})
    return settings["splits"]


def _jobs(out: Path, split: str, frames: list[Frame], per_shard: int) -> list[Job]:
    folders = shard_folders(out, split, len(frames), per_shard)
    return [(f, frames[k * per_shard : (k + 1) * per_shard]) for k, (f, _) in enumerate(folders)]


def _is_done(folder: Path, frames: list[Frame], data: Path, size: tuple[int, int]) -> bool:
    """Whether a shard holds exactly these frames, is undamaged, and matches the files' content."""
    try:
        shard = open_shard(folder, size)
    except InputError:
        return False
    index = shard.index
    found = [{k: facts["path"] for k, facts in entry["files"].items()} for entry in index]
    wanted = [
        {k: p.relative_to(data).as_posix() for k, p in frame._asdict().items() if p is not None}
        for frame in frames
    ]
    return (
        found == wanted
        and not any(changed_file(data, entry["files"]) for entry in index)
        and all(shard.is_whole(row) for row in range(len(index)))
    )


def _check_out(out: Path, size: tuple[int, int], labels: str) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if is_prepared(out):
        manifest = read_manifest(out)
        height, width = manifest["size"]
        if (height, width) != tuple(size):
            raise InputError(
                f"--out: {out} was prepared with --size {height}x{width}; choose another"
            )
        if manifest["labels"] != labels:
            raise InputError(
                f"--out: {out} was prepared with --labels {manifest['labels']}; choose another"
            )
    elif out.exists() and any(p.name != f"{MANIFEST}.partial" for p in entries(out)):
        raise InputError(f"--out: {out} holds something other than a prepared dataset")


def _remove_all_but(folders: list[Path], out: Path) -> None:
    """Remove shards beyond the last, and what a killed run has left."""
    for split in (out / name for name in SPLITS if (out / name).is_dir()):
        for path in set(entries(split)) - set(folders):
            shutil.rmtree(path)


def _write_manifest(out: Path, manifest: dict[str, Any]) -> None:
    write_atomically(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--data", type=Path, required=True, help="dataset in the official layout")
    add("--out", type=Path, required=True, help="folder of the copy; an earlier one is renewed")
    text = "height and width of the copy (128x256)"
    add("--size", type=height_and_width, default=(128, 256), metavar="HxW", help=text)
    add("--labels", choices=LABELS, default=FINE, help="labels of the training images (gtFine)")
    text = "copy only the first N images of each split"
    add("--limit", type=positive_number, metavar="N", help=text)
    workers = "processes that decode (one per core)"
    add("--workers", type=positive_number, metavar="N", help=workers)


def run(data: Path, out: Path, size: tuple[int, int], **options: Any) -> None:
    """Write a resized copy that trains without decoding images."""
    with locked(out):
        counts = prepare(data, out, size, **options)
    for split, count in counts.items():
        print(f"{split}: {count} images of {size[0]}x{size[1]} in {out / split}")
