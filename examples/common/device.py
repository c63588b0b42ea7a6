"""Picks the device to compute on."""

import torch

from examples.common.errors import InputError


def pick_device(choice: str) -> torch.device:
    """Return the device that `--device` asks for."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("--device: cuda was asked for, but torch finds no GPU")
    if choice == "auto":
        choice = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(choice)


def check_compiler(device: torch.device) -> None:
    """Raise unless torch.compile works here, which takes a compiler for the device.

    `torch.compile` itself would fail only at the first call, when the run has already started.
    """
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.zeros(2, device=device))
    except Exception as error:  # every backend has its own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--compile: torch.compile does not work here ({reason})") from error
