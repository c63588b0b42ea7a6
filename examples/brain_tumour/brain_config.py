"""Everything that decides a training run, as one checked and saved dataclass."""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path

from examples.common.errors import InputError
from examples.common.flag_text import flag_of
from examples.common.records import check_whole_numbers, read_object

MODALITIES = ("flair", "t1", "t1ce", "t2")
DEVICES = ("auto", "cpu", "cuda")

DOWNSAMPLING = 8
"""The network halves its input three times."""


@dataclass(frozen=True, kw_only=True)
class BrainConfig:
    """Everything that decides a run."""

    out: Path
    """Folder of the run: config.json, metrics.jsonl, last.pt."""
    data: Path | None = None
    """Folder of BraTS cases; None for generated volumes."""
    missing: str = "flair"
    """The modality to synthesise; the other three are the input."""
    size: tuple[int, int, int] = (24, 32, 32)
    """Voxels along each axis of the network's input; volumes are cropped or padded to it."""
    cases: int = 40
    """Generated volumes to train on; a quarter as many are generated for validation."""

    weighting: str = "uncertainty"
    """`uncertainty` (learned) or `manual:SEGMENTATION,SYNTHESIS`, such as `manual:0.1,1.0`."""
    class_weight: tuple[float, float, float, float] = (1.0, 4.0, 4.0, 4.0)
    """Weights of the background and of the labels 1, 2 and 4 in the cross-entropy."""
    base_width: int = 4
    """k of the network; its first resolution has 2k channels."""
    dropout: float = 0.1
    """Probability that an activation is dropped."""

    lr: float = 2e-4
    """Adam's learning rate for the network."""
    sigma_lr: float = 1e-2
    """Adam's learning rate for the log variances."""
    iterations: int = 400
    """Optimizer steps."""
    batch_size: int = 1
    """Volumes per step."""
    seed: int = 0
    """Decides the initial weights, dropout and the order of the volumes, but not the volumes."""
    checkpoint_every: int = 100
    """Iterations between checkpoints; the last iteration is always saved."""
    device: str = "auto"
    """`auto` takes the GPU if there is one."""

    def __post_init__(self) -> None:
        check_whole_numbers(vars(self))
        manual_weights(self.weighting)
        for flag, choices in (("missing", MODALITIES), ("device", DEVICES)):
            if (value := getattr(self, flag)) not in choices:
                raise InputError(f"--{flag}: unknown {value!r}; choose from {', '.join(choices)}")
        # Below 16 the lowest resolution is a single voxel, which instance norm cannot normalise.
        if len(self.size) != 3 or any(n < 16 or n % DOWNSAMPLING for n in self.size):
            raise InputError(
                f"--size: should be three multiples of {DOWNSAMPLING} from 16 up; found "
                f"{'x'.join(map(str, self.size))}"
            )
        if len(self.class_weight) != 4 or not all(0 < w < math.inf for w in self.class_weight):
            raise InputError(f"`class_weight` should be four numbers above 0: {self.class_weight}")
        for flag in ("iterations", "batch_size", "base_width", "cases", "checkpoint_every"):
            if (value := getattr(self, flag)) < 1:
                raise InputError(f"{flag_of(flag)}: should be at least 1; found {value}")
        for flag in ("lr", "sigma_lr"):
            if not 0 < (value := getattr(self, flag)) < math.inf:
                raise InputError(f"{flag_of(flag)}: should be above 0; found {value}")
        if not 0 <= self.dropout < 1:
            raise InputError(f"`dropout` should be from 0 up and below 1; found {self.dropout}")
        if self.seed < 0:
            raise InputError(f"--seed: should not be negative; found {self.seed}")


def manual_weights(weighting: str) -> dict[str, float] | None:
    """Return the weight of each task by name, or None where the weights are learned.

    Manual weights are written as the report's table does, segmentation first: `manual:0.1,1.0`.
    """
    if weighting == "uncertainty":
        return None
    kind, _, numbers = weighting.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")] if kind == "manual" else []
    except ValueError:
        values = []
    if len(values) != 2 or not all(0 <= value < math.inf for value in values):
        raise InputError(
            "--weighting: should be uncertainty or manual:SEGMENTATION,SYNTHESIS, such as "
            f"manual:0.1,1.0, with numbers from 0 up; found {weighting!r}"
        )
    segmentation, synthesis = values
    return {"synthesis": synthesis, "segmentation": segmentation}


def to_json(config: BrainConfig) -> str:
    """Return the text of config.json."""
    fields = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
    return json.dumps(fields, indent=2) + "\n"


def load_config(run: Path) -> BrainConfig:
    """Read the config.json of a run folder."""
    path = run / "config.json"
    if not path.is_file():
        raise InputError(f"{path}: not found, so {run} does not hold a training run")
    fields = read_object(path, BrainConfig, "correct the file by hand")
    fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
    data = None if fields.get("data") is None else Path(fields["data"])
    try:
        # The folder may have been moved since: `out` is where the file was found.
        return BrainConfig(**{**fields, "data": data, "out": run})
    except InputError as error:
        raise InputError(f"{path}: {error}; correct the file by hand") from error


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options of a training; what is not given is left to `BrainConfig`."""
    add = parser.add_argument
    add("--missing", choices=MODALITIES, help="the modality to synthesise (flair)")
    add("--size", type=_size, metavar="DxHxW", help="multiples of 8 from 16 up (24x32x32)")
    add("--cases", type=int, metavar="N", help="generated volumes to train on (40)")
    add("--iterations", type=int, metavar="N", help="optimizer steps (400)")
    add("--batch-size", type=int, metavar="B", help="volumes per step (1)")
    add("--base-width", type=int, metavar="K", help="width of the network (4)")
    add("--lr", type=float, metavar="X", help="learning rate of the network (2e-4)")
    add("--sigma-lr", type=float, metavar="X", help="learning rate of the log variances (1e-2)")
    add("--device", choices=DEVICES)


def _size(text: str) -> tuple[int, ...]:
    parts = text.split("x")
    if len(parts) != 3 or not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"should be DxHxW, such as 24x32x32; found {text!r}")
    return tuple(int(part) for part in parts)
