"""Weights from a file, checked before a network takes them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from examples.common.errors import reason_of

PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every name."""


def load_weights(module: nn.Module, state: object) -> None:
    """Load a state dict of the module, or of the module wrapped by one of those in `PREFIXES`.

    Raises:
        ValueError: If it does not fit, or if a weight is not a finite number. The message names
            the first such weight, and counts the others.
    """
    state = unwrapped(state)
    check_fit(module.state_dict(), state)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(reason_of(error)) from error


def unwrapped(state: object) -> dict[str, Tensor]:
    """Return a state dict with the names that the module had before it was wrapped."""
    if not isinstance(state, dict):
        raise ValueError("it holds no weights")
    for prefix in PREFIXES:
        if state and all(isinstance(name, str) and name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def check_fit(expected: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    """Raise unless both have the same names and shapes, and what was found is finite."""
    missing = [name for name in expected if name not in found]
    # Batch norm of older PyTorch versions has no such counter, and loads without it.
    if missing := [name for name in missing if not name.endswith("num_batches_tracked")]:
        raise ValueError(f"{first_of(missing)} missing")
    if unknown := [name for name in found if name not in expected]:
        raise ValueError(f"{first_of(unknown)} unknown")
    if strange := [name for name, value in found.items() if not is_plain(value)]:
        raise ValueError(f"{first_of(strange)} sparse, quantized, without data or not a tensor")
    for name, value in found.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{name!r} has shape {tuple(value.shape)} instead of {tuple(expected[name].shape)}"
            )
    if broken := [name for name, value in found.items() if not torch.isfinite(value).all()]:
        raise ValueError(f"{first_of(broken)} not finite")


def is_plain(value: object) -> bool:
    """Whether a value is a dense tensor that holds its numbers: not sparse, quantized or meta."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and not (value.is_meta or value.is_quantized)
    )


def first_of(names: Iterable[object]) -> str:
    """Return the beginning of a sentence on some names: 'conv.bias' and 3 others are."""
    first, *others = (repr(name) if len(repr(name)) < 80 else "a long name" for name in names)
    if not others:
        return f"{first} is"
    return f"{first} and {len(others)} {'others are' if len(others) > 1 else 'other are'}"
