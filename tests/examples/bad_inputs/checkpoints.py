"""Rows about the checkpoints of a run."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.examples.bad_inputs.row import Accepted, Refused
from tests.examples.bad_inputs.spoil_runs import (
    LAST,
    MEASURE,
    RESUME,
    changed,
    flip,
    has_trained,
)


def first_weight(saved: dict[str, Any]) -> torch.Tensor:
    """Return the filters of the first layer."""
    return saved["model"]["trunk.stem.0.weight"]


def first_momentum(saved: dict[str, Any]) -> torch.Tensor:
    """Return what the optimizer has gathered for them."""
    return saved["optimizers"][0]["state"][0]["momentum_buffer"]


class Payload:
    """Something that runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch was_run",)


def wrap_in(prefix: str) -> Callable[[], None]:
    """Return what puts a prefix before the names of all weights."""

    def change(saved: dict[str, Any]) -> None:
        saved["model"] = {prefix + name: value for name, value in saved["model"].items()}

    return changed(change)


def drop_decoders(saved: dict[str, Any]) -> None:
    """Keep the trunk."""
    saved["model"] = {k: v for k, v in saved["model"].items() if k.startswith("trunk")}


def has_measured() -> None:
    """Assert that the figures are those of before."""
    assert json.loads(Path("run/metrics.json").read_text())["num_images"] == 2


CHECKPOINTS: list[Refused | Accepted] = [
    Refused(
        what="a checkpoint with one flipped bit",
        spoil=lambda: flip(LAST, 0.5),
        command=RESUME,
        line="run/last.pt: has changed since it was saved (the checksum of ... is wrong); restore "
        "it from a copy, or use another checkpoint",
    ),
    Refused(
        what="a checkpoint with one flipped bit, when a run is evaluated",
        spoil=lambda: flip(LAST, 0.3),
        command=MEASURE,
        line="run/last.pt: has changed since it was saved (the checksum of ... is wrong); restore "
        "it from a copy, or use another checkpoint",
    ),
    Refused(
        what="a checkpoint whose end is missing",
        spoil=lambda: LAST.write_bytes(LAST.read_bytes()[:-1000]),
        command=RESUME,
        line="run/last.pt: not a readable checkpoint (PytorchStreamReader failed ...)",
    ),
    Refused(
        what="a text file as a checkpoint",
        spoil=lambda: LAST.write_text("hello, world\n"),
        command=RESUME,
        line="run/last.pt: not a readable checkpoint; it should be a torch.save file that holds "
        "tensors and plain values only, and no other objects",
    ),
    Refused(
        what="a checkpoint that would run code",
        spoil=lambda: torch.save({"model": Payload()}, LAST),
        command=MEASURE,
        line="run/last.pt: not a readable checkpoint; it should be a torch.save file that holds "
        "tensors and plain values only, and no other objects",
    ),
    Refused(
        what="a checkpoint with numbers as names",
        spoil=changed(lambda saved: saved.update({3: 4})),
        command=MEASURE,
        line="run/last.pt: should hold a dict of tensors by their names; found the name 3",
    ),
    Refused(
        what="weights with numbers as names",
        spoil=changed(lambda saved: saved["model"].update({3: torch.zeros(1)})),
        command=MEASURE,
        line="run/last.pt: does not fit the run's config.json (3 is unknown)",
    ),
    Refused(
        what="a checkpoint without most weights",
        spoil=changed(drop_decoders),
        command=MEASURE,
        line="run/last.pt: does not fit the run's config.json ('aspp.branches.0.0.weight' and 40 "
        "others are missing)",
    ),
    Refused(
        what="a checkpoint of a network of another width",
        spoil=changed(
            lambda saved: saved["model"].update({"trunk.stem.0.weight": torch.zeros(8, 3, 7, 7)})
        ),
        command=MEASURE,
        line="run/last.pt: does not fit the run's config.json ('trunk.stem.0.weight' has shape "
        "(8, 3, 7, 7) instead of (64, 3, 7, 7))",
    ),
    Refused(
        what="a checkpoint with a weight that is not a number",
        spoil=changed(lambda saved: first_weight(saved)[0, 0].fill_(torch.nan)),
        command=MEASURE,
        line="run/last.pt: does not fit the run's config.json ('trunk.stem.0.weight' is not "
        "finite)",
    ),
    Refused(
        what="a checkpoint with an infinite sigma",
        spoil=changed(lambda saved: saved["loss"]["heads.depth.log_var"].fill_(torch.inf)),
        command=RESUME,
        line="run/last.pt: does not fit the run's config.json ('heads.depth.log_var' is not "
        "finite)",
    ),
    Refused(
        what="a checkpoint with an infinite momentum",
        spoil=changed(lambda saved: first_momentum(saved).fill_(torch.inf)),
        command=RESUME,
        line="run/last.pt: does not fit the run's config.json ('momentum_buffer' of an optimizer "
        "is not finite)",
    ),
    Refused(
        what="a checkpoint of -5 iterations",
        spoil=changed(lambda saved: saved.update(iteration=-5)),
        command=RESUME,
        line="run/last.pt: `iteration` should be from 0 up; found -5; restore the file from a "
        "copy, or use another checkpoint",
    ),
    Refused(
        what="a checkpoint without random states",
        spoil=changed(lambda saved: saved.pop("rng")),
        command=RESUME,
        line="run/last.pt: not a checkpoint of a run ('rng' is missing)",
    ),
    Refused(
        what="a checkpoint without its iteration, when a run is evaluated",
        spoil=changed(lambda saved: saved.pop("iteration")),
        command=MEASURE,
        line="run/last.pt: not a checkpoint of a run ('iteration' is missing)",
    ),
    Accepted(
        what="a checkpoint of a network that DistributedDataParallel has wrapped",
        spoil=wrap_in("module."),
        command=MEASURE,
        rule="The prefix is taken off.",
        check=has_measured,
    ),
    Accepted(
        what="resuming from weights that DistributedDataParallel has wrapped",
        spoil=wrap_in("module."),
        command=RESUME,
        rule="The prefix is taken off.",
        check=has_trained("run"),
    ),
]
