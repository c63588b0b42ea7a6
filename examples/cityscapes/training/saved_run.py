"""What a run's checkpoint has to hold so that the run can go on from it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from examples.cityscapes.data.files import Frame
from examples.common.checked_weights import first_of
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from examples.common.fingerprint import fingerprint_of_names

PARTS: dict[str, Any] = {
    "iteration": int,
    "best": (float, type(None)),
    "validated": int,
    "model": dict,
    "loss": dict,
    "optimizers": list,
    "sampler": dict,
    "rng": dict,
}
"""Types by name."""

Saved = dict[str, Any]


def read_saved(path: Path) -> Saved:
    """Read a checkpoint of a run.

    Raises:
        InputError: If the file is not one.
    """
    saved = read_checkpoint(path)
    # Runs used to be validated before they were saved.
    saved.setdefault("validated", saved.get("iteration"))
    for name, kind in PARTS.items():
        if name not in saved:
            raise InputError(f"{path}: not a checkpoint of a run ({name!r} is missing)")
        if not isinstance(saved[name], kind) or isinstance(saved[name], bool):
            found = type(saved[name]).__name__
            raise InputError(f"{path}: not a checkpoint of a run ({name!r} is of type {found})")
    if saved["iteration"] < 0:
        raise InputError(
            f"{path}: `iteration` should be from 0 up; found {saved['iteration']}; restore the "
            "file from a copy, or use another checkpoint"
        )
    if saved["best"] is not None and not math.isfinite(saved["best"]):
        raise InputError(f"{path}: `best` should be a finite number; found {saved['best']}")
    return saved


def sampler_of(seed: int, frames: Sequence[Frame]) -> dict[str, Any]:
    """Return what decides the order of the training images, apart from the iteration."""
    return {
        "seed": seed,
        "num_images": len(frames),
        "stems": fingerprint_of_names(frame.stem for frame in frames),
    }


def check_same_images(saved: Saved, frames: Sequence[Frame]) -> None:
    """Raise unless the run was started on images of the same names.

    They may have moved to another folder, and they may be a prepared copy now.
    """
    recorded, now = saved["sampler"], sampler_of(0, frames)
    if recorded["num_images"] != now["num_images"]:
        raise InputError(
            f"--data: the run was started on {recorded['num_images']} training images; found "
            f"{now['num_images']}, which would change their order; pass the dataset of the run"
        )
    if recorded.get("stems", now["stems"]) != now["stems"]:  # older checkpoints have none
        raise InputError(
            f"--data: should hold the training images that the run was started on; found "
            f"{now['num_images']} images with other names, such as {frames[0].image}; pass the "
            "dataset of the run"
        )


def check_optimizer(optimizer: Optimizer) -> None:
    """Raise unless what the optimizer has gathered fits its parameters and is finite."""
    for parameter, gathered in optimizer.state.items():
        for name, value in gathered.items():
            if not isinstance(value, Tensor):
                continue
            if value.ndim and value.shape != parameter.shape:
                raise ValueError(f"{name!r} of an optimizer has shape {tuple(value.shape)}")
            if not torch.isfinite(value).all():
                raise ValueError(f"{name!r} of an optimizer is not finite")


def check_loss(loss_fn: nn.Module) -> None:
    """Raise unless every learned scale is finite; running means are nan before the first batch."""
    broken = [n for n, p in loss_fn.named_parameters() if not torch.isfinite(p).all()]
    if broken:
        raise ValueError(f"{first_of(broken)} not finite")
