"""Looking for all problems of a dataset in the official layout."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from examples.cityscapes.data import targets as target_ops
from examples.cityscapes.data.camera_file import read_baseline_fx
from examples.cityscapes.data.files import (
    COARSE,
    FINE,
    Frame,
    frame_of,
    images_of_city,
    without_labels,
)
from examples.cityscapes.data.problems import Problems
from examples.cityscapes.data.read_image import (
    read_disparity,
    read_instance_ids,
    read_label_ids,
    read_rgb,
)
from examples.cityscapes.labels import IGNORE_INDEX
from examples.common.listing import entries

TASKS = ("semantic", "instance", "depth")

NO_IMAGES = "splits without images"
NO_FOLDER = "folders that cannot be read"
NO_LABELS = "images without labels"
NO_INSTANCES = "images without instance ids (--tasks semantic,depth trains without)"
NO_DISPARITY = "missing disparity files of cities that have some"
NO_CAMERA = "missing camera files of cities that have some"
NO_IMAGE = "files that belong to no image"
BAD_IMAGE = "images that cannot be used"
BAD_SHAPE = "images with another aspect ratio than most"
BAD_LABELS = "label files that cannot be used"
BAD_DISPARITY = "disparity files that cannot be used"
BAD_CAMERA = "camera files that cannot be used"
CONTRADICTION = "label files that contradict each other"
NOTHING_TO_TRAIN = "tasks without any label in the training images"


def check_tree(root: Path, problems: Problems, labels: str = FINE) -> list[str]:
    """Read every file that training and evaluation read, and add what is wrong with them.

    Args:
        root: Folder of the dataset.
        problems: Gets what is found.
        labels: Labels of the training images: `gtFine` or `gtCoarse`.

    Returns:
        A line for each split, which says what there is.
    """
    splits = {"train": labels, "val": FINE}
    if labels == COARSE:
        splits = {"train": labels, "train_extra": labels, "val": FINE}
    frames = {split: list(_frames(root, split, of, problems)) for split, of in splits.items()}
    seen: set[str] = set()
    sizes: dict[Path, tuple[int, int]] = {}
    # The bar shows on terminals only: elsewhere, only the report should be printed.
    with tqdm(desc="checking", unit="image", leave=False, disable=None) as bar:
        bar.total = sum(map(len, frames.values()))
        for split, of_split in frames.items():
            for frame in of_split:
                size, found = _check_frame(frame, problems)
                if size is not None:
                    sizes[frame.image] = size
                if split != "val":
                    seen |= found
                bar.update()
    _check_shapes(sizes, problems)
    if any(of_split for split, of_split in frames.items() if split != "val"):
        for task in TASKS:
            if task not in seen:
                problems.add(NOTHING_TO_TRAIN, task)
    return [_summary(split, of_split) for split, of_split in frames.items()]


def _frames(root: Path, split: str, labels: str, problems: Problems) -> Iterator[Frame]:
    """Yield what there is of each image, after adding what is missing."""
    folder = root / "leftImg8bit" / split
    stems: dict[str, set[str]] = {}
    for city in entries(folder) if folder.is_dir() else ():
        images = problems.unless_refused(NO_FOLDER, images_of_city, city)
        found = [frame_of(root, split, image, labels) for image in images or ()]
        for frame in found:
            if frame.label_ids is None and frame.instance_ids is None:
                problems.add(NO_LABELS, without_labels(root, split, frame.image, labels))
        _check_partners(found, problems)
        stems[city.name] = {frame.stem for frame in found}
        yield from found
    if not any(stems.values()):
        problems.add(NO_IMAGES, f"{folder}: holds no image */*_leftImg8bit.png")
    for kind, endings in {
        labels: (f"_{labels}_labelIds.png", f"_{labels}_instanceIds.png"),
        "disparity": ("_disparity.png",),
        "camera": ("_camera.json",),
    }.items():
        _check_owners(root / kind / split, endings, stems, problems)


def _check_partners(frames: list[Frame], problems: Problems) -> None:
    """Add the files that some images of a city lack, unless all of its images lack them."""
    have_disparity = [frame for frame in frames if frame.disparity]
    have_camera = any(frame.camera for frame in frames)
    for frame in frames:
        if frame.label_ids and not frame.instance_ids:
            problems.add(NO_INSTANCES, str(frame.image))
        if have_disparity and not frame.disparity:
            problems.add(NO_DISPARITY, str(frame.image))
        if have_camera and frame.disparity and not frame.camera:
            problems.add(NO_CAMERA, str(frame.image))


def _check_owners(
    folder: Path, endings: tuple[str, ...], stems: dict[str, set[str]], problems: Problems
) -> None:
    """Add the files of a split whose image is not there."""
    for city in entries(folder) if folder.is_dir() else ():
        for path in entries(city) if city.is_dir() else ():
            for ending in endings:
                is_one = path.name.lower().endswith(ending.lower())
                if is_one and path.name[: -len(ending)] not in stems.get(city.name, ()):
                    problems.add(NO_IMAGE, str(path))


def _check_frame(frame: Frame, problems: Problems) -> tuple[tuple[int, int] | None, set[str]]:
    """Read all files of a frame; returns the size of the image, and the tasks that have labels."""
    image = problems.unless_refused(BAD_IMAGE, read_rgb, frame.image)
    size = None if image is None else (image.shape[0], image.shape[1])
    arrays: dict[str, Tensor] = {}
    for name, kind, read in (
        ("label_ids", BAD_LABELS, read_label_ids),
        ("instance_ids", BAD_LABELS, read_instance_ids),
        ("disparity", BAD_DISPARITY, read_disparity),
    ):
        path = getattr(frame, name)
        found = None if path is None else problems.unless_refused(kind, read, path, size)
        if found is not None:
            arrays[name] = torch.from_numpy(found)
    if frame.camera and frame.disparity and size is not None:
        problems.unless_refused(BAD_CAMERA, read_baseline_fx, frame.camera, width=size[1])
    # Without the image's size, its labels may differ in size, and cannot be compared.
    return size, set() if size is None else _tasks_with_labels(frame, arrays, problems)


def _tasks_with_labels(frame: Frame, arrays: dict[str, Tensor], problems: Problems) -> set[str]:
    """Return which tasks have labels, after comparing both kinds of ids."""
    tasks, label_ids = set(), arrays.get("label_ids")
    if "instance_ids" in arrays:
        implied = target_ops.label_ids_from_instance_ids(arrays["instance_ids"])
        label_ids = implied if label_ids is None else label_ids
        if count := int((label_ids != implied).sum()):
            problems.add(
                CONTRADICTION,
                f"{frame.label_ids}: the label ids of {count} pixels contradict their instance "
                f"ids in {frame.instance_ids}",
            )
        if bool(target_ops.evaluated_instances(arrays["instance_ids"]).any()):
            tasks.add("instance")
    if label_ids is not None and bool((target_ops.train_ids(label_ids) != IGNORE_INDEX).any()):
        tasks.add("semantic")
    raw = arrays.get("disparity")
    if label_ids is not None and raw is not None:
        tasks |= {"depth"} if bool(target_ops.settle_disparity(raw, label_ids).any()) else set()
    return tasks


def _check_shapes(sizes: dict[Path, tuple[int, int]], problems: Problems) -> None:
    """Add the images that cannot be resized to one size together with most others."""
    shapes = Counter(width / height for height, width in sizes.values())
    if len(shapes) < 2:
        return
    usual = shapes.most_common(1)[0][0]
    height, width = next(s for s in sizes.values() if s[1] / s[0] == usual)
    for path, size in sizes.items():
        if size[1] / size[0] != usual:
            problems.add(
                BAD_SHAPE, f"{path}: is {size[0]}x{size[1]}; most are like {height}x{width}"
            )


def _summary(split: str, frames: list[Frame]) -> str:
    with_file = {
        "label ids": sum(f.label_ids is not None or f.instance_ids is not None for f in frames),
        "instance ids": sum(f.instance_ids is not None for f in frames),
        "disparity": sum(f.disparity is not None for f in frames),
        "camera": sum(f.camera is not None for f in frames),
    }
    parts = ", ".join(f"{count} {name}" for name, count in with_file.items())
    return f"{split}: {len(frames)} images ({parts})"
