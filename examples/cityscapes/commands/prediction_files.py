"""The files that hold the prediction for an image."""

import io
import shutil
from pathlib import Path, PurePath

import numpy as np

from examples.cityscapes.report.pictures import (
    draw_key,
    draw_overlay,
    draw_panels,
    draw_uncertainty,
)
from examples.cityscapes.scene.maps import Arrays
from examples.common.checkpoint import write_atomically

_STAGE = ".predictions.partial"


def write_files(
    out: Path, name: PurePath, arrays: Arrays, with_arrays: bool, with_uncertainty: bool
) -> list[Path]:
    """Draw a prediction and write all of its files, or none of them if anything fails.

    Args:
        out: Folder of all predictions.
        name: Of the image, relative to the folder.
        arrays: The image and what was predicted.
        with_arrays: Whether the arrays are written, too.
        with_uncertainty: Whether maps of uncertainty are among them, and are drawn.
    """
    contents = {"panels.png": draw_panels(arrays)}
    if "classes" in arrays:
        contents["overlay.png"] = draw_overlay(
            arrays["image"], arrays["classes"], arrays.get("instances")
        )
    if with_uncertainty:
        contents["uncertainty.png"] = draw_uncertainty(arrays)
    if with_arrays:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, **arrays)
        contents["arrays.npz"] = buffer.getvalue()

    folder, stage = out / name.parent, out / _STAGE
    shutil.rmtree(stage, ignore_errors=True)  # left by a process that was killed
    folder.mkdir(parents=True, exist_ok=True)
    stage.mkdir()
    key = out / "classes.png"
    try:
        if "classes" in arrays and not key.exists():
            write_atomically(key, draw_key())
        for ending, content in contents.items():
            write_atomically(stage / ending, content)
        paths = {ending: folder / f"{name.name}_{ending}" for ending in contents}
        for ending, path in paths.items():
            (stage / ending).replace(path)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    return list(paths.values())
