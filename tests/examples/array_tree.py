"""A writer of trees as MTAN, LibMTL, Nash-MTL and FAMO use them, from scenes rendered by us."""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import Cityscapes

CATEGORY_BY_LABEL_ID = {c.id: c.category_id - 1 for c in Cityscapes.classes if c.id >= 0}
"""The official categories without void, which becomes -1."""
IS_EVALUATED = {c.id for c in Cityscapes.classes if not c.ignore_in_eval and c.id >= 0}


def write_arrays(official: Path, out: Path) -> Path:
    """Write the scenes of a tree in the official layout as arrays of the same size; returns `out`.

    It reads the files by itself, and shares no code with the example.
    """
    for split in ("train", "val"):
        images = sorted((official / "leftImg8bit" / split).glob("*/*.png"))
        for number, path in enumerate(images):
            stem = path.name.removesuffix("_leftImg8bit.png")
            city = path.parent.name
            labels = official / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png"
            disparity = official / "disparity" / split / city / f"{stem}_disparity.png"
            ids, raw = np.array(Image.open(labels)), np.array(Image.open(disparity)).astype(float)
            known = (raw > 0) & (ids != 1)  # 1 is the ego vehicle, which is left out
            depth = np.where(known, (raw - 1) / 256, 0.0)
            write_array(out, split, number, "image", np.array(Image.open(path)) / 255)
            write_array(out, split, number, "label_7", categories(ids))
            write_array(out, split, number, "depth", depth[..., None])
    return out


def categories(label_ids: np.ndarray) -> np.ndarray:
    """Return the number of the category of every pixel, -1 for what is not evaluated."""
    found = np.full(label_ids.shape, -1.0)
    for label_id in IS_EVALUATED:
        found[label_ids == label_id] = CATEGORY_BY_LABEL_ID[label_id]
    return found


def write_array(out: Path, split: str, number: int, kind: str, values: np.ndarray) -> Path:
    """Write one array."""
    path = out / split / kind / f"{number}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, values.astype(np.float32))
    return path
