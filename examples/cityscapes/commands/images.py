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
        out: Folder of the predictions. It may lie inside `path`; its contents are then left out.

    Returns:
        The images in the order of their names. The keys are the relative paths of the predictions,
        without the ending of the image, unless two images differ only in their endings.

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
    return dict(zip(_names([image.relative_to(path) for image in images]), images, strict=True))


def _names(relative: list[Path]) -> list[PurePath]:
    """Drop the ending of every path that remains unique without it."""
    names = [PurePath(path.with_suffix("")) for path in relative]
    # In a loop: a restored ending can clash again, as `a.png` does with a shortened `a.png.jpg`.
    while clashing := [name for name, count in Counter(names).items() if count > 1]:
        names = [
            PurePath(path) if name in clashing else name
            for path, name in zip(relative, names, strict=True)
        ]
    return names
