"""The files that hold the prediction for an image."""

import io
from argparse import ArgumentTypeError
from contextlib import ExitStack
from pathlib import Path, PurePath

import numpy as np

from examples.cityscapes.protocols import Protocol
from examples.cityscapes.report.pictures import (
    draw_key,
    draw_overlay,
    draw_panels,
    draw_uncertainty,
)
from examples.cityscapes.scene.maps import Arrays
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError
from examples.common.folders import complete_file

FILES = ("panels", "overlay", "uncertainty", "arrays")
"""What `--write` chooses from."""


def kinds_of_files(text: str) -> tuple[str, ...]:
    """Read which files are to be written: some of `FILES`, with commas."""
    kinds = tuple(part.strip() for part in text.split(","))
    if unknown := [kind for kind in kinds if kind not in FILES]:
        raise ArgumentTypeError(
            f"should be some of {','.join(FILES)} with commas; found {unknown[0]!r}"
        )
    return kinds


def files_to_write(
    asked: tuple[str, ...] | None, tasks: tuple[str, ...], with_uncertainty: bool
) -> tuple[str, ...]:
    """Return which files are written: those that were asked for, or all that there can be.

    Raises:
        InputError: If there is nothing to put into a file that was asked for.
    """
    needs = {}
    if "semantic" not in tasks:
        needs["overlay"] = "a network that was trained on the semantic task"
    if not with_uncertainty:
        needs["uncertainty"] = "the option --uncertainty"
    for kind in asked or ():
        if kind in needs:
            raise InputError(f"--write: {kind} needs {needs[kind]}")
    return tuple(kind for kind in FILES if kind in (asked or set(FILES) - set(needs)))


def write_key(out: Path, protocol: Protocol) -> None:
    """Write the key of the colours in overlays, over that of any other protocol."""
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / "classes.png", draw_key(protocol))


def write_files(
    out: Path, name: PurePath, arrays: Arrays, kinds: tuple[str, ...], protocol: Protocol
) -> list[Path]:
    """Draw a prediction and write its files, or none of them if anything fails.

    Args:
        out: Folder of all predictions.
        name: Name of the image, relative to the folder.
        arrays: The image and what was predicted.
        kinds: Which files; see `files_to_write`.
        protocol: Has the names and colours of the classes.
    """
    contents = {}
    if "panels" in kinds:
        contents["panels.png"] = draw_panels(arrays, protocol)
    if "overlay" in kinds:
        contents["overlay.png"] = draw_overlay(
            arrays["image"], arrays["classes"], arrays.get("instances"), protocol
        )
    if "uncertainty" in kinds:
        contents["uncertainty.png"] = draw_uncertainty(arrays)
    if "arrays" in kinds:
        buffer = io.BytesIO()
        # No `allow_pickle=False`: NumPy 2.0 and older would save it as one more array.
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        contents["arrays.npz"] = buffer.getvalue()

    folder = out / name.parent
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name.name}_{ending}" for ending in contents]
    # All files take their places at once, when the last of them has been written.
    with ExitStack() as stack:
        for path, content in zip(paths, contents.values(), strict=True):
            stack.enter_context(complete_file(path)).write_bytes(content)
    return paths
