"""Rows about weights for the trunk."""

from collections.abc import Callable
from typing import Any

import torch
from torchvision.models import resnet18

from tests.examples.bad_inputs.row import TRAIN, Accepted, Refused
from tests.examples.bad_inputs.spoil_runs import flip, has_trained


def weights(change: Callable[[dict[str, Any]], Any], **options: bool) -> Callable[[], None]:
    """Return what saves the weights of a ResNet after a change."""

    def spoil() -> None:
        torch.save(change(dict(resnet18(weights=None).state_dict())), "w.pt", **options)

    return spoil


def damaged_weights() -> None:
    """Flip a bit of a weight."""
    weights(dict)()
    flip("w.pt", 0.5)


TRUNK_WEIGHTS: list[Refused | Accepted] = [
    Refused(
        what="ResNet weights with one flipped bit",
        spoil=damaged_weights,
        command=f"{TRAIN} --backbone-weights w.pt",
        line="w.pt: has changed since it was saved (the checksum of ... is wrong); restore it "
        "from a copy, or use another checkpoint",
    ),
    Refused(
        what="ResNet weights that are not numbers",
        spoil=weights(lambda w: {k: v * torch.nan if v.ndim else v for k, v in w.items()}),
        command=f"{TRAIN} --backbone-weights w.pt",
        line="--backbone-weights: w.pt does not fit resnet18 ('stem.0.weight' and ... others are "
        "not finite)",
    ),
    Refused(
        what="a dict in a dict as ResNet weights",
        spoil=weights(lambda w: {"state_dict": w}),
        command=f"{TRAIN} --backbone-weights w.pt",
        line="--backbone-weights: w.pt does not fit resnet18 ('stem.0.weight' and ... others are "
        "missing)",
    ),
    Accepted(
        what="ResNet weights in the format before PyTorch 1.6, wrapped and without counts",
        spoil=weights(
            lambda w: {f"module.{k}": v for k, v in w.items() if "num_batches" not in k},
            _use_new_zipfile_serialization=False,
        ),
        command=f"{TRAIN} --backbone-weights w.pt",
        rule="They are read, and have no checksum.",
        check=has_trained(),
    ),
]
