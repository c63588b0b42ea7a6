"""A writer of tiny datasets in the official layout, for tests of what reads them."""

import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from examples.cityscapes.data.targets import (
    Centroids,
    number_instances,
    offsets_of_numbers,
    stack_centroids,
)

ROAD, CAR, SKY, EGO = 7, 26, 23, 1


def write_tree(
    root: Path,
    *,
    train: int = 6,
    val: int = 2,
    size: tuple[int, int] = (16, 32),
    disparity: bool = True,
    label_ids: bool = True,
) -> Path:
    """Write scenes of a bright car on a dark road under a blue sky; returns `root`."""
    for split, count in (("train", train), ("val", val)):
        for index in range(count):
            write_frame(
                root,
                split,
                f"town_{index:06d}_000000",
                *scene(size, seed=zlib.crc32(split.encode()) + index),
                disparity=disparity,
                label_ids=label_ids,
            )
    return root


def scene(size: tuple[int, int], seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return an image, its instance ids, and its raw disparity."""
    height, width = size
    rng = np.random.default_rng(seed)
    ids = np.full(size, ROAD, dtype=np.uint16)
    ids[: height // 4] = SKY
    left = int(rng.integers(0, width // 2))
    ids[height // 3 : 2 * height // 3, left : left + width // 3] = CAR * 1000
    raw = np.full(size, 1 + 256 * 2, dtype=np.uint16)
    raw[ids == CAR * 1000] = 1 + 256 * 5
    raw[ids == SKY] = 0
    colors = {ROAD: (60, 60, 60), SKY: (90, 140, 230), CAR * 1000: (230, 200, 40)}
    image = np.zeros((*size, 3))
    for value, color in colors.items():
        image[ids == value] = color
    image += rng.normal(0, 8, image.shape)
    return image.clip(0, 255).astype(np.uint8), ids, raw


def write_frame(
    root: Path,
    split: str,
    stem: str,
    image: np.ndarray,
    instance_ids: np.ndarray,
    raw_disparity: np.ndarray,
    *,
    disparity: bool = True,
    label_ids: bool = True,
) -> None:
    """Write one frame."""
    city = stem.split("_")[0]
    label = np.where(instance_ids >= 1000, instance_ids // 1000, instance_ids).astype(np.uint8)
    _write(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png", image)
    _write(root / "gtFine" / split / city / f"{stem}_gtFine_instanceIds.png", instance_ids)
    if label_ids:
        _write(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", label)
    if disparity:
        _write(root / "disparity" / split / city / f"{stem}_disparity.png", raw_disparity)


def _write(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def offsets(instance_ids: Tensor, centroids: Centroids) -> Tensor:
    """Return the vector from each pixel of one image to the centre of its instance, (2, H, W)."""
    numbers = number_instances(instance_ids, centroids)
    return offsets_of_numbers(numbers.unsqueeze(0), stack_centroids([centroids])).squeeze(0)
