"""How rows spoil the folders of a dataset."""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

SYSTEM_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")


def remove_images() -> None:
    """Leave the labels."""
    shutil.rmtree("scenes/leftImg8bit")


def fill_labels(kind: str, value: int) -> None:
    """Give all pixels of all label files of a kind one value."""
    for path in Path("scenes").rglob(f"*{kind}.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image)
        Image.fromarray(np.full_like(pixels, value)).save(path)


def add_other_manifest(root: str) -> None:
    """Put into a folder what other programs call `manifest.json`."""
    (Path(root) / "manifest.json").write_text('{"name": "scenes", "version": 3}')


def make_void() -> None:
    """Leave no pixel with a class."""
    fill_labels("labelIds", 0)
    fill_labels("instanceIds", 0)


def rename_disparity() -> None:
    """Give the disparity files another ending."""
    for path in Path("scenes/disparity").rglob("*.png"):
        path.rename(path.with_suffix(".tiff"))


def add_system_files(root: str) -> None:
    """Put into every folder what operating systems leave there."""
    for folder in [Path(root), *(path for path in Path(root).rglob("*") if path.is_dir())]:
        for path in [path for path in folder.iterdir() if path.is_file()]:
            (folder / f"._{path.name}").write_bytes(b"\0\5\26\7")
        for name in SYSTEM_FILES:
            (folder / name).write_bytes(b"\0")
        (folder / "@eaDir").mkdir()
        (folder / "@eaDir/thumbnail_leftImg8bit.png").write_bytes(b"\0")
    (Path(root) / ".hidden").mkdir()
    (Path(root) / ".hidden/photo.png").write_bytes(b"\0")


def spoil_copy() -> None:
    """Put system files into a prepared copy, part of which has to be made again."""
    shutil.rmtree("copy/train/00000")
    add_system_files("copy")


def link_city() -> None:
    """Move the folders of a city elsewhere, and leave links."""
    for split in sorted(Path("scenes").glob("*/train")):
        elsewhere = Path(f"elsewhere/{split.parent.name}")
        elsewhere.parent.mkdir(exist_ok=True)
        (split / "town").rename(elsewhere)
        (split / "town").symlink_to(elsewhere.absolute())


def link_in_a_circle() -> None:
    """Let a folder of photos link to itself."""
    Path("photos/again").symlink_to(Path("photos").absolute())


def write_capitals() -> None:
    """Give all files endings in capitals."""
    for path in [path for path in Path("scenes").rglob("*") if path.suffix == ".png"]:
        path.rename(path.with_suffix(".PNG"))


def make_coarse() -> None:
    """Call the labels of the training images coarse, and add two images that have no others."""
    Path("scenes/gtCoarse").mkdir()
    Path("scenes/gtFine/train").rename("scenes/gtCoarse/train")
    for path in Path("scenes/gtCoarse").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("gtFine", "gtCoarse")))
    for path in sorted(Path("scenes").glob("*/train/town/town_00000[01]*")):
        extra = Path(str(path).replace("/train/", "/train_extra/").replace("town", "village"))
        extra.parent.mkdir(parents=True, exist_ok=True)
        path.rename(extra)
