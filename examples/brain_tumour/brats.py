"""Reading BraTS: one folder per case, one NIfTI file per modality."""

import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError, SpatialImage

from examples.brain_tumour.brain_config import MODALITIES
from examples.brain_tumour.volumes import Size, Volume, prepare
from examples.common.errors import InputError

_SUFFIXES = (".nii.gz", ".nii")
# What nibabel raises on damaged files, depending on where the damage is.
_BROKEN = (ImageFileError, HeaderDataError, OSError, EOFError, ValueError, zlib.error)


def find_cases(root: Path) -> list[Path]:
    """List the case folders of `<root>/<case>/<case>_{flair,t1,t1ce,t2,seg}.nii.gz`, by name.

    Only headers are read. `seg` may be absent: the case is then unlabelled.

    Raises:
        InputError: If there is no case, or one lacks a modality, or its files differ in shape.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    cases = sorted(
        folder
        for folder in root.iterdir()
        if any(find(folder, kind) is not None for kind in MODALITIES)
    )
    if not cases:
        raise InputError(f"{root}: no case found as CASE/CASE_flair.nii.gz")
    for folder in cases:
        check_case(folder)
    return cases


def check_case(folder: Path) -> None:
    """Raise unless the files of a case are there and have one shape."""
    shapes = {}
    for kind in (*MODALITIES, "seg"):
        path = find(folder, kind)
        if path is not None:
            shapes[kind] = open_image(path).shape
        elif kind != "seg":
            raise InputError(f"{folder}: {folder.name}_{kind}.nii.gz not found")
    if len(set(shapes.values())) > 1 or len(shapes["flair"]) != 3:
        found = ", ".join(f"{kind} {'x'.join(map(str, s))}" for kind, s in shapes.items())
        raise InputError(f"{folder}: the files should share one shape of three axes; found {found}")


def read_case(folder: Path, size: Size) -> Volume:
    """Read a case, normalised and cropped or padded to `size`; labels are None without `seg`."""
    found = [find(folder, kind) for kind in MODALITIES]
    images = np.stack([read_array(path) for path in found if path is not None])
    segmentation = find(folder, "seg")
    labels = None if segmentation is None else read_array(segmentation)
    return prepare(str(folder), images, labels, size)


def find(folder: Path, kind: str) -> Path | None:
    """Return the file of a modality or of `seg`, compressed or not, or None."""
    paths = (folder / f"{folder.name}_{kind}{suffix}" for suffix in _SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def read_array(path: Path) -> np.ndarray:
    """Read the voxels of a file, as float32."""
    try:
        return np.asarray(open_image(path).dataobj, dtype=np.float32)
    except _BROKEN as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error})") from error


def open_image(path: Path) -> SpatialImage:
    """Read the header of a file; its voxels are left on the disk."""
    try:
        image: Any = nibabel.load(path)
        return image
    except _BROKEN as error:
        raise InputError(f"{path}: not a readable NIfTI file ({error})") from error
