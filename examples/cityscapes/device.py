"""Where to compute."""

import torch

from examples.cityscapes.errors import InputError


def pick_device(choice: str) -> torch.device:
    """Return the device that `--device` asks for."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: cuda was asked for, but torch finds no GPU")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)
