"""Finding the files of a dataset in the official CityScapes layout."""

from pathlib import Path
from typing import NamedTuple

from examples.common.errors import InputError
from examples.common.listing import entries

FINE, COARSE = "gtFine", "gtCoarse"
"""The folders of labels."""

_IMAGE = "_leftImg8bit"


class Frame(NamedTuple):
    """The files of one image; a file that the tree does not hold is None."""

    image: Path
    label_ids: Path | None
    instance_ids: Path | None
    disparity: Path | None
    camera: Path | None = None

    @property
    def stem(self) -> str:
        """City, sequence and frame, as in every file name of the frame."""
        return stem_of(self.image)


def find_frames(
    root: Path, split: str, *, labels: str = FINE, need_instances: bool = True
) -> list[Frame]:
    """List the frames of a split, ordered by city and name.

    Args:
        root: Folder that holds `leftImg8bit/`, `gtFine/` and, where there is depth, `disparity/`
            and `camera/`.
        split: `train`, `val` or `test`.
        labels: `gtFine` or `gtCoarse`. With coarse labels, those images of `train_extra` which have
            no others are part of `train`.
        need_instances: Whether `labelIds` alone are not enough.

    Raises:
        InputError: If the split holds no image, or an image has no labels.
    """
    images = {split: list_images(root, split)}
    if split == "train" and labels == COARSE:
        images["train_extra"] = list_images(root, "train_extra")
    if not any(images.values()):
        raise _no_images(root, split)
    return [
        _frame(root, folder, image, labels, need_instances)
        for folder, of_folder in images.items()
        for image in of_folder
    ]


def find_images(root: Path, split: str) -> list[Path]:
    """List the images of a split, ordered by city and name; those of `test` have no labels."""
    if images := list_images(root, split):
        return images
    raise _no_images(root, split)


def list_images(root: Path, split: str) -> list[Path]:
    """List the images of a split; none if the folder of the split is empty or absent."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    folder = root / "leftImg8bit" / split
    images = []
    for city in entries(folder) if folder.is_dir() else ():
        if city.is_symlink() and not city.exists():
            raise InputError(f"{city}: is a link to a folder that does not exist")
        if city.is_dir():
            images += [path for path in entries(city) if _is_image(path.name)]
    return images


def stem_of(image: Path) -> str:
    """Return city, sequence and frame, as in every file name of the frame."""
    return image.stem.removesuffix(_IMAGE)


def _is_image(name: str) -> bool:
    stem, _, ending = name.rpartition(".")
    return stem.endswith(_IMAGE) and ending.lower() == "png"


def _no_images(root: Path, split: str) -> InputError:
    return InputError(f"{root}: no images found as leftImg8bit/{split}/*/*{_IMAGE}.png")


def _frame(root: Path, split: str, image: Path, labels: str, need_instances: bool) -> Frame:
    city, stem = image.parent.name, stem_of(image)
    label_ids = _file(root / labels / split / city / f"{stem}_{labels}_labelIds.png")
    instance_ids = _file(root / labels / split / city / f"{stem}_{labels}_instanceIds.png")
    disparity = _file(root / "disparity" / split / city / f"{stem}_disparity.png")
    camera = _file(root / "camera" / split / city / f"{stem}_camera.json")
    if instance_ids is None and (need_instances or label_ids is None):
        wanted = root / labels / split / city / f"{stem}_{labels}_instanceIds.png"
        has_coarse = labels == FINE and (root / COARSE / split).is_dir()
        hint = f"; --labels {COARSE} trains on the coarse ones" if has_coarse else ""
        raise InputError(f"{image}: has no labels; {wanted} not found{hint}")
    return Frame(image, label_ids, instance_ids, disparity, camera)


def _file(path: Path) -> Path | None:
    """Return the file of that name, whose ending may be in capitals, or None."""
    if path.is_file():
        return path
    in_capitals = path.with_suffix(path.suffix.upper())
    return in_capitals if in_capitals.is_file() else None


def check_aspect(path: Path, found: tuple[int, int], size: tuple[int, int]) -> None:
    """Raise unless an image of size `found` can be resized to `size` without distortion."""
    if found[0] * size[1] != found[1] * size[0]:
        raise InputError(
            f"{path}: is {found[0]}x{found[1]} (height x width), which has another shape than "
            f"--size {size[0]}x{size[1]}"
        )
