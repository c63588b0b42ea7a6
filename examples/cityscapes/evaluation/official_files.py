"""Predictions in the files that the official scripts and the test server read."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from examples.cityscapes.scene.maps import PredictedScene
from examples.cityscapes.scene.panoptic import (
    CATEGORIES,
    instance_classes,
    label_ids,
    panoptic_ids,
    panoptic_image,
    segments_info,
)
from examples.common.checkpoint import write_atomically


class Exporter:
    """Writes the predictions of one split, scene by scene.

    Under the folder appear `semantic/` (label ids; one half of a submission), `instance/` (a list
    and a mask for each instance; the other half) and `panoptic/` with its table.

    Args:
        folder: Where to write; made here.
        split: Names the panoptic table, `cityscapes_panoptic_SPLIT.json`.
    """

    def __init__(self, folder: Path, split: str) -> None:
        self._folder, self._split = folder, split
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, stem: str, scene: PredictedScene) -> None:
        """Write the files of one image; the panoptic table has to wait for `finish`."""
        semantic = semantic_file(self._folder, stem)
        _write_png(semantic, label_ids(scene.classes).astype(np.uint8))
        if scene.instances is None or scene.confidence is None:
            return
        self._write_instances(stem, scene.classes, scene.instances, scene.confidence)
        ids = panoptic_ids(scene.classes, scene.instances)
        name = f"{stem}_panoptic.png"
        _write_png(self._folder / "panoptic" / name, panoptic_image(ids))
        height, width = ids.shape
        file_name = f"{stem}_leftImg8bit.png"
        self._images.append({"id": stem, "width": width, "height": height, "file_name": file_name})
        self._annotations.append(
            {"image_id": stem, "file_name": name, "segments_info": segments_info(ids)}
        )

    def finish(self) -> None:
        """Write the table of the panoptic maps, if there are any."""
        if self._annotations:
            table = {
                "images": self._images,
                "annotations": self._annotations,
                "categories": CATEGORIES,
            }
            path = self._folder / f"cityscapes_panoptic_{self._split}.json"
            write_atomically(path, json.dumps(table) + "\n")

    def _write_instances(
        self, stem: str, classes: np.ndarray, instances: np.ndarray, confidence: np.ndarray
    ) -> None:
        lines = []
        of_instance = label_ids(instance_classes(classes, instances))
        for number, (label_id, belief) in enumerate(zip(of_instance, confidence, strict=True), 1):
            mask = f"masks/{stem}_{number:04d}.png"
            _write_png(self._folder / "instance" / mask, instances == number)
            lines.append(f"{mask} {label_id} {belief:.6f}\n")
        path = instance_file(self._folder, stem)
        path.parent.mkdir(parents=True, exist_ok=True)
        # The list last: where it is, its masks are.
        write_atomically(path, "".join(lines))


def semantic_file(folder: Path, stem: str) -> Path:
    """Return where the label ids of an image are."""
    return folder / "semantic" / f"{stem}_pred_labelIds.png"


def instance_file(folder: Path, stem: str) -> Path:
    """Return where the list of an image's instances is."""
    return folder / "instance" / f"{stem}_pred_instances.txt"


def _write_png(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=1)
    write_atomically(path, buffer.getvalue())
