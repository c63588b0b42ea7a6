"""Starting a run with the weights of another run's network."""

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from examples.common.checked_weights import is_plain, load_weights, unwrapped
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from examples.common.torchrun import is_first


def take_weights(model: nn.Module, source: Path, *, partly: bool = False) -> None:
    """Give a network the weights of another one, and the statistics of its batch norm.

    Nothing else is taken: no sigma, which starts from the losses of the run's own first batch, no
    state of an optimizer, and no iteration, as the schedule of the learning rate starts again.

    Args:
        model: The network.
        source: Folder of a run, of which `last.pt` is taken, or one of its checkpoints.
        partly: Whether weights without a counterpart of their shape keep their values; a line on
            stderr lists them.

    Raises:
        InputError: If there are no such weights, or they do not fit.
    """
    path = source / "last.pt" if source.is_dir() else source
    if not path.is_file():
        raise InputError(
            f"--init-from: {path} not found; give the folder of a run that has saved its first "
            "checkpoint, or one of its checkpoints"
        )
    try:
        weights = unwrapped(read_checkpoint(path).get("model"))
        if partly:
            weights = _fitting(model.state_dict(), weights)
        load_weights(model, weights)
    except ValueError as error:
        way_out = "" if partly else "; --init-partly takes only the weights that fit"
        raise InputError(
            f"--init-from: {path} does not fit this run's network ({error}){way_out}"
        ) from error


def _fitting(own: dict[str, Tensor], found: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the network's own weights, replaced by those found where names and shapes agree."""
    fitting = {
        name: value
        for name, value in found.items()
        if name in own and is_plain(value) and value.shape == own[name].shape
    }
    if not fitting:
        raise ValueError("none of its weights fits")
    if is_first():
        print(
            f"--init-partly: started as without --init-from: {_counted(own.keys() - fitting)}; "
            f"not taken: {_counted(found.keys() - fitting)}",
            file=sys.stderr,
        )
    return {**own, **fitting}


def _counted(names: Iterable[str]) -> str:
    """Return how many names there are in each part of the network."""
    counts = Counter(".".join(name.split(".")[:2]) for name in names)
    parts = (f"{part} ({count} tensors)" for part, count in sorted(counts.items()))
    return ", ".join(parts) or "nothing"
