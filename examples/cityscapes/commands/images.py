"""Which images a path stands for, and what their predictions are called."""

from collections import Counter
from pathlib import Path, PurePath

from examples.common.errors import InputError
from examples.common.listing import files_below

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def images_below(path: Path, out: Path) -> dict[PurePath, Path]:
    """Find images and name them.

    Args:
        path: One image, or a folder with images at any depth: frames of a video, or a dataset in
            the official layout, of which only `leftImg8bit` holds images.
        out: Where predictions go. It may lie in that folder; what it holds is left out.

    Returns:
        The images in the order of their names, by the relative path that their predictions get,
        without an ending. Images that differ in nothing but their ending keep it.

    Raises:
        InputError: If there is no image, or predictions would be written between the images.
    """
    if path.is_file():
        return {PurePath(path.stem): path}
    if not path.is_dir():
        raise InputError(f"{path}: no such file or folder")
    if out.resolve() == path.resolve():
        raise InputError(f"--out: {out} is the folder of the images; choose another one")
    official = path / "leftImg8bit"
    inside = out.resolve() if out.resolve().is_relative_to(path.resolve()) else None
    images = sorted(
        image
        for image in files_below(official if official.is_dir() else path)
        if image.suffix.lower() in SUFFIXES
        and not (inside and image.resolve().is_relative_to(inside))
    )
    if not images:
        raise InputError(f"{path}: holds no images ({', '.join(SUFFIXES)})")
    relative = [PurePath(image.relative_to(path)) for image in images]
    stems = Counter(name.with_suffix("") for name in relative)
    is_unique = len(stems) == len(relative)
    names = [name.with_suffix("") if is_unique else name for name in relative]
    return dict(zip(names, images, strict=True))
