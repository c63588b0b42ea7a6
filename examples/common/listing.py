"""Listing folders: links are followed, and what operating systems leave in them is passed over."""

from collections.abc import Iterator
from pathlib import Path

_SYSTEM = ("thumbs.db", "desktop.ini", "@eadir", "__macosx")


def is_data(name: str) -> bool:
    """Whether a file or folder of this name is the user's: not hidden, such as `._x.png`."""
    return not name.startswith(".") and name.lower() not in _SYSTEM


def entries(folder: Path) -> list[Path]:
    """Return the user's files and folders in a folder, ordered by name."""
    return sorted(path for path in folder.iterdir() if is_data(path.name))


def files_below(folder: Path) -> Iterator[Path]:
    """Yield the user's files at any depth, ordered by name.

    A link to nothing counts as a file: whoever reads it says that it is broken, whereas leaving
    it out would silently give fewer files.
    """
    yield from _files_below(folder, above=())


def _files_below(folder: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    here = folder.resolve()
    if here in above:  # a link to a folder that holds it would lead round without end
        return
    for path in entries(folder):
        if path.is_dir():
            yield from _files_below(path, (*above, here))
        else:
            yield path
