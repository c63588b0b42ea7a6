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
        labels: `gtFine` or `gtCoarse`. With `gtCoarse`, the images of `train_extra`, which have
            coarse labels only, are part of `train`.
        need_instances: Whether every frame must have instance ids, and not only `labelIds`.

    Raises:
        InputError: If the split holds no image, or an image has no labels.
    """
    images = {split: list_images(root, split)}
    if split == "train" and labels == COARSE:
        images["train_extra"] = list_images(root, "train_extra")
    if not any(images.values()):
        raise InputError(f"{root}: no images found as leftImg8bit/{split}/*/*{_IMAGE}.png")
    frames = []
    for folder, of_folder in images.items():
        for image in of_folder:
            frame = frame_of(root, folder, image, labels)
            if frame.instance_ids is None and (need_instances or frame.label_ids is None):
                raise InputError(without_labels(root, folder, image, labels))
            frames.append(frame)
    return frames


def list_images(root: Path, split: str) -> list[Path]:
    """List the images of a split by city and name; none if its folder is empty or absent."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    folder = root / "leftImg8bit" / split
    cities = entries(folder) if folder.is_dir() else []
    return [image for city in cities for image in images_of_city(city)]


def images_of_city(city: Path) -> list[Path]:
    """List the images in the folder of a city; none if it is a file."""
    if city.is_symlink() and not city.exists():
        raise InputError(f"{city}: is a link to a folder that does not exist")
    return [path for path in entries(city) if _is_image(path.name)] if city.is_dir() else []


def stem_of(image: Path) -> str:
    """Return city, sequence and frame, as in every file name of the frame."""
    return image.stem.removesuffix(_IMAGE)


def _is_image(name: str) -> bool:
    stem, _, ending = name.rpartition(".")
    return stem.endswith(_IMAGE) and ending.lower() == "png"


def frame_of(root: Path, split: str, image: Path, labels: str = FINE) -> Frame:
    """Return the files of an image, as far as there are any."""
    city, stem = image.parent.name, stem_of(image)
    label_ids = _file(root / labels / split / city / f"{stem}_{labels}_labelIds.png")
    instance_ids = _file(root / labels / split / city / f"{stem}_{labels}_instanceIds.png")
    disparity = _file(root / "disparity" / split / city / f"{stem}_disparity.png")
    camera = _file(root / "camera" / split / city / f"{stem}_camera.json")
    return Frame(image, label_ids, instance_ids, disparity, camera)


def without_labels(root: Path, split: str, image: Path, labels: str) -> str:
    """Return what to say about an image without labels."""
    name = f"{stem_of(image)}_{labels}_instanceIds.png"
    has_coarse = labels == FINE and (root / COARSE / split).is_dir()
    hint = f"; --labels {COARSE} trains on the coarse ones" if has_coarse else ""
    wanted = root / labels / split / image.parent.name / name
    return f"{image}: has no labels; {wanted} not found{hint}"


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
            f"{path}: is {found[0]}x{found[1]} (height x width), which cannot be resized to "
            f"--size {size[0]}x{size[1]} without distortion; choose a size of the same ratio"
        )
