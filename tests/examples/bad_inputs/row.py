"""The two kinds of rows."""

from collections.abc import Callable
from typing import NamedTuple

TRAIN = (
    "train --data scenes --out new --size 16x32 --backbone resnet18 --backbone-weights none "
    "--stages 1 --output-stride 4 --aspp-channels 4 --aspp-rates 1,2 --decoder-channels 4 "
    "--iterations 2 --batch-size 2 --device cpu --num-workers 0 --no-tensorboard"
)
"""A training run that takes a second. Options can be appended; they override earlier ones."""


class Refused(NamedTuple):
    """An input that ends a command with one line and status 2."""

    what: str
    """The input in the documentation's words, such as "a label image with one bit a pixel"."""
    spoil: Callable[[], None]
    """Makes the input. It is called in the folder, as the command is."""
    command: str
    line: str
    """All that the command prints as its error; `...` stands for anything."""


class Accepted(NamedTuple):
    """An input that looks wrong, and that a rule makes sense of."""

    what: str
    spoil: Callable[[], None]
    command: str
    rule: str
    """What the example does with it, in the documentation's words."""
    check: Callable[[], None]
    """Asserts, after the command, that this is what happened."""
