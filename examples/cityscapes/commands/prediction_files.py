"""The files that hold the prediction for an image."""

import io
from contextlib import ExitStack
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
from examples.common.folders import complete_file


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

    folder = out / name.parent
    folder.mkdir(parents=True, exist_ok=True)
    key = out / "classes.png"
    if "classes" in arrays and not key.exists():
        write_atomically(key, draw_key())
    paths = [folder / f"{name.name}_{ending}" for ending in contents]
    # Only when the last one is written do they take their places, all at once.
    with ExitStack() as stack:
        for path, content in zip(paths, contents.values(), strict=True):
            stack.enter_context(complete_file(path)).write_bytes(content)
    return paths
