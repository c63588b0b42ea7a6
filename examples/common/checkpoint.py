"""Saving and loading without ever leaving half a file, and without pickled objects."""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from examples.common.errors import InputError, reason_of
from examples.common.folders import complete_file

_IS_FOLDER = 0x10
# What zipfile raises on a damaged file, depending on where the damage is.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # "encrypted", or a compression that does not exist
    ValueError,
    OverflowError,
)


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that, whatever happens, either the old or the complete new one is there."""
    with complete_file(path) as partial:
        partial.write_bytes(content.encode() if isinstance(content, str) else content)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save tensors and plain values; a run killed meanwhile still has its last checkpoint."""
    with complete_file(path) as partial, partial.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):  # "unexpected pos 704 vs 598": a full disk
                raise error.__context__ from None
            raise
        # It has to be on the disk before it is renamed: a power cut could otherwise leave neither.
        file.flush()
        os.fsync(file.fileno())


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load tensors and plain values by name, and nothing that could run code.

    Raises:
        InputError: If there is no such file, if it holds anything else, or if its bytes are no
            longer those that were saved.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        _check_bytes(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (InputError, MemoryError):
        raise
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path}: not a readable checkpoint ({reason_of(error)})") from error
    except Exception as error:  # which one depends on what the file is instead
        # PyTorch's own message advises to load the file in a way that runs any code in it.
        raise InputError(
            f"{path}: not a readable checkpoint; it should be a torch.save file that holds "
            "tensors and plain values only, and no other objects"
        ) from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: should hold a dict of tensors; found {type(state).__name__}")
    if strange := [name for name in state if not isinstance(name, str)]:
        raise InputError(
            f"{path}: should hold a dict of tensors by their names; found the name {strange[0]!r}"
        )
    return state


def _check_bytes(path: Path) -> None:
    """Raise unless the file holds what was saved, by the checksums that torch.save writes."""
    try:
        if not zipfile.is_zipfile(path):
            return  # weights from before PyTorch 1.6, which have none; or not a checkpoint at all
        with zipfile.ZipFile(path) as archive:
            # All are 0 in a file that was saved under `set_crc32_options(False)` of PyTorch.
            is_checked = any(member.CRC for member in archive.infolist())
            damaged = archive.testzip() if is_checked else None
            # A single bit says that a member is a folder. PyTorch then reads none of its bytes, and
            # leaves in the tensor what was in memory.
            folders = [m.filename for m in archive.infolist() if m.external_attr & _IS_FOLDER]
    except _DAMAGED as error:
        raise _damaged(path, reason_of(error)) from error
    if damaged is not None:
        raise _damaged(path, f"the checksum of {damaged} is wrong")
    if folders:
        raise _damaged(path, f"{folders[0]} is marked as a folder")


def _damaged(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path}: has changed since it was saved ({reason}); restore it from a copy, or use "
        "another checkpoint"
    )
