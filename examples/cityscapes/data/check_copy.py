"""Looking for all problems of a copy that `prepare` has written."""

from pathlib import Path

from tqdm import tqdm

from examples.cityscapes.data.prepared import changed_file, read_manifest, shard_folders
from examples.cityscapes.data.problems import Problems
from examples.cityscapes.data.shards import open_shard
from examples.common.listing import entries

NO_MANIFEST = "settings of the copy that cannot be used"
NO_SHARD = "missing parts of the copy"
BAD_SHARD = "parts of the copy that cannot be used"
BAD_FRAME = "frames that have changed since they were written"
CHANGED = "source files that have changed since they were copied"
_RENEW = "run `prepare` again"


def check_copy(root: Path, problems: Problems) -> list[str]:
    """Read every frame of a prepared copy, and add what is wrong.

    Args:
        root: Folder of the copy.
        problems: Gets what is found.

    Returns:
        A line for each split, which says what there is.
    """
    manifest = problems.unless_refused(NO_MANIFEST, read_manifest, root)
    if manifest is None:
        return []
    if not manifest["complete"]:
        problems.add(NO_MANIFEST, f"{root}: not completely prepared; {_RENEW} to finish it")
    lines = []
    for split, num_frames in manifest["splits"].items():
        there = {path.name for path in entries(root / split)} if (root / split).is_dir() else set()
        # The bar shows on terminals only: elsewhere, only the report should be printed.
        with tqdm(total=num_frames, desc=split, unit="image", leave=False, disable=None) as bar:
            for folder, count in shard_folders(root, split, num_frames, manifest["per_shard"]):
                if folder.name in there:
                    _check_shard(folder, count, manifest["size"], manifest["source"], problems)
                elif folder.name > max(there, default=""):
                    problems.add(NO_SHARD, f"{folder}, and all that should follow; {_RENEW}")
                    break  # a damaged manifest may ask for more than any disk holds
                else:
                    problems.add(NO_SHARD, f"{folder}; {_RENEW}")
                bar.update(count)
        height, width = manifest["size"]
        lines.append(f"{split}: {num_frames} images of {height}x{width} in {len(there)} parts")
    return lines


def _check_shard(
    folder: Path, count: int, size: tuple[int, int], source: Path, problems: Problems
) -> None:
    shard = problems.unless_refused(BAD_SHARD, open_shard, folder, size)
    if shard is None:
        return
    if len(shard.index) != count:
        problems.add(
            BAD_SHARD, f"{folder}: should hold {count} frames; found {len(shard.index)}; {_RENEW}"
        )
    for row, entry in enumerate(shard.index):
        if not shard.is_whole(row):
            problems.add(BAD_FRAME, f"{folder}: frame {row}; {_RENEW}")
        if changed := changed_file(source, entry["files"]):
            problems.add(CHANGED, f"{changed}; {_RENEW}")
