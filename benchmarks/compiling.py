"""`torch.compile` for candidates: one graph each, and nothing left from the one before."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TypeVar

import torch

Function = TypeVar("Function", bound=Callable[..., object])


def compiled(function: Function) -> Function:
    """Return the function compiled for exactly its own shapes, without a graph break."""
    return torch.compile(function, fullgraph=True, dynamic=False)


def cpp_compiler() -> str:
    """Return the C++ compiler that PyTorch uses for a CPU: it makes a difference of its own."""
    return os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")


def compiler_version() -> str:
    """Return what the C++ compiler says that it is; an empty text if there is none."""
    found = shutil.which(cpp_compiler())
    if found is None:
        return ""
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return said.stdout.partition("\n")[0].strip() or cpp_compiler()


def compiler_is_missing(device: torch.device) -> str:
    """Return why nothing can be compiled here, or an empty text."""
    if device.type == "cpu" and not compiler_version():
        return f"no C++ compiler `{cpp_compiler()}` was found; `CXX` names another."
    return ""
