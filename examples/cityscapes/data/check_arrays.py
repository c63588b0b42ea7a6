"""Looking for all problems of the arrays of papers on multi-task learning."""

from collections import Counter
from pathlib import Path

import numpy as np
from tqdm import tqdm

from examples.cityscapes.data.arrays import (
    DEPTHS,
    IMAGES,
    LABELS,
    numbered,
    open_image,
    read_classes,
    read_colors,
    read_depth,
)
from examples.cityscapes.data.check_tree import (
    BAD_DISPARITY,
    BAD_IMAGE,
    BAD_LABELS,
    NO_IMAGE,
    NO_IMAGES,
    NOTHING_TO_TRAIN,
)
from examples.cityscapes.data.problems import Problems
from examples.cityscapes.labels import IGNORE_INDEX

NO_CLASSES = "images without classes"
NO_DEPTH = "images without depth"
BAD_SIZE = "images of another size than most"
SPLITS = ("train", "val")
_READ = {LABELS: (read_classes, BAD_LABELS), DEPTHS: (read_depth, BAD_DISPARITY)}
_ABSENT = {LABELS: NO_CLASSES, DEPTHS: NO_DEPTH}


def check_arrays(root: Path, problems: Problems) -> list[str]:
    """Read every array that training and evaluation read, and add what is wrong with them.

    Args:
        root: Folder that holds `train/` and `val/`.
        problems: Gets what is found.

    Returns:
        A line for each split, which says what there is.
    """
    images = {split: numbered(root / split / IMAGES) for split in SPLITS}
    sizes: dict[Path, tuple[int, int]] = {}
    lines = []
    # The bar shows on terminals only: elsewhere, only the report should be printed.
    with tqdm(desc="checking", unit="image", leave=False, disable=None) as bar:
        bar.total = sum(map(len, images.values()))
        for split, of_split in images.items():
            folder = root / split
            if not of_split:
                problems.add(NO_IMAGES, f"{folder / IMAGES}: holds no image N.npy")
            _check_owners(folder, {path.name for path in of_split}, problems)
            # If a split has no labels of a kind at all, it is not meant for that task.
            kinds = [kind for kind in _READ if (folder / kind).is_dir()]
            count: Counter[str] = Counter()
            for image in of_split:
                if (size := _check_image(image, problems)) is not None:
                    sizes[image] = size
                count.update(_check_labels(folder, image, kinds, size, problems))
                bar.update()
            if of_split and split == "train":
                for kind, task in ((LABELS, "semantic"), (DEPTHS, "depth")):
                    if not count[kind]:
                        problems.add(NOTHING_TO_TRAIN, task)
            found = ", ".join(f"{count[kind]} with {kind}" for kind in _READ)
            lines.append(f"{split}: {len(of_split)} images ({found})")
    _check_sizes(sizes, problems)
    return lines


def _check_owners(folder: Path, names: set[str], problems: Problems) -> None:
    """Add the labels whose image is not there."""
    for kind in _READ:
        for path in numbered(folder / kind):
            if path.name not in names:
                problems.add(NO_IMAGE, str(path))


def _check_image(path: Path, problems: Problems) -> tuple[int, int] | None:
    """Read an image, and return its height and width."""
    opened = problems.unless_refused(BAD_IMAGE, open_image, path)
    if opened is None:
        return None
    problems.unless_refused(BAD_IMAGE, read_colors, path)
    return opened.shape[0], opened.shape[1]


def _check_labels(
    folder: Path, image: Path, kinds: list[str], size: tuple[int, int] | None, problems: Problems
) -> list[str]:
    """Read what an image has of each kind, and return the kinds with a label."""
    labelled = []
    for kind in kinds:
        path, (read, bad) = folder / kind / image.name, _READ[kind]
        if not path.is_file():
            problems.add(_ABSENT[kind], f"{image}: has no {path}")
            continue
        found = problems.unless_refused(bad, read, path, size)
        if found is not None and _is_known(kind, found).any():
            labelled.append(kind)
    return labelled


def _is_known(kind: str, values: np.ndarray) -> np.ndarray:
    return values != IGNORE_INDEX if kind == LABELS else np.isfinite(values)


def _check_sizes(sizes: dict[Path, tuple[int, int]], problems: Problems) -> None:
    """Add the images that cannot be in a batch with most others."""
    usual = Counter(sizes.values()).most_common(1)
    for path, (height, width) in sizes.items():
        if (height, width) != usual[0][0]:
            most = "x".join(map(str, usual[0][0]))
            problems.add(BAD_SIZE, f"{path}: is {height}x{width}; most are {most}")
