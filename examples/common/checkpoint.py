"""Saving and loading without ever leaving half a file, and without pickled objects."""

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from examples.common.errors import InputError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file that is either the old one or the new one, whatever happens meanwhile."""
    temporary = path.with_name(path.name + ".partial")
    temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    temporary.replace(path)


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Save tensors and plain values; a run killed meanwhile still has its last checkpoint."""
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
        torch.save(state, file)
        # On the disk before it takes the old one's name, or a power cut could leave neither.
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Load tensors and plain values, and nothing that could run code.

    Raises:
        InputError: If there is no such file, or it holds anything else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(state, dict):
        raise InputError(f"{path}: should hold a dict of tensors; found {type(state).__name__}")
    return state
