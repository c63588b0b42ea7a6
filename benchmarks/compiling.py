"""`torch.compile` for candidates: one graph each, and nothing left from the one before."""

import shutil
from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Return the function compiled for exactly its own shapes, without a graph break."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def compiler_is_missing(device: torch.device) -> str:
    """Return why nothing can be compiled here, or an empty text."""
    if device.type == "cpu" and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        return "no C++ compiler was found."
    return ""
