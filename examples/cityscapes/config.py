"""Everything that decides a training run, as one checked and saved dataclass."""

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path

from examples.cityscapes.presets import PRESETS
from examples.common.errors import InputError

TASKS = ("semantic", "instance", "depth")
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
DEVICES = ("auto", "cpu", "cuda")
ESTIMATORS = ("learned", "closed_form")
FORMS = ("nll", "symmetric", "paper", "libmtl", "liebel_koerner")
CONSTRAINTS = ("none", "unit_sum")
PRECISIONS = ("float32", "bf16")
DEPTH_NOISE = ("shared", "per-pixel")

_FREE_ON_RESUME = {
    "data",
    "iterations",
    "checkpoint_every",
    "eval_every",
    "tensorboard",
    "device",
    "num_workers",
    "cache_mb",
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run; the defaults are the paper's Tiny CityScapes setting."""

    data: Path
    """Root of the dataset, in the official layout (`leftImg8bit/`, `gtFine/`, `disparity/`,
    `camera/`), or as `prepare` has written it."""
    out: Path
    """Folder of the run: config.json, metrics.jsonl, last.pt and more; see the README."""
    preset: str = "tiny"
    """The named setting that the other fields started from: `tiny`, `full`, `demo` or `quick`."""
    tasks: tuple[str, ...] = TASKS
    """The tasks to train; the order is the one that `fixed:` weights follow."""
    weighting: str = "uncertainty"
    """`uncertainty` (learned), `equal` (1/K each) or `fixed:w1,w2,...` in the order of `tasks`."""
    estimator: str = "learned"
    """How sigma is found: `learned` by gradient, or `closed_form` from a running mean."""
    closed_form_momentum: float = 0.1
    """Share of the newest batch in the running mean of `closed_form`."""
    form: str = "nll"
    """`nll`, or a form found elsewhere: `symmetric`, `paper`, `libmtl`, `liebel_koerner`."""
    constraint: str = "none"
    """`unit_sum` keeps the sum of the learned weights at 1."""
    sigma_init: str = "1"
    """Where every sigma starts: a number, or `data` for the optimum of its first labelled batch."""
    size: tuple[int, int] = (128, 256)
    """Height and width of the network's input; the images are resized to it."""
    flip: bool = True
    """Whether half of the training images are mirrored."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest factor by which a training image of `size` is scaled."""
    crop: tuple[int, int] | None = None
    """Height and width of what is cut out of the scaled training image; None: all of it."""

    backbone: str = "resnet101"
    """The ResNet whose convolutions make the trunk."""
    backbone_weights: str = "imagenet"
    """`imagenet`, `none`, or the path of a ResNet state dict."""
    stages: int = 4
    """How many of the four ResNet stages to keep, counted from the input."""
    output_stride: int = 8
    """Input pixels per feature pixel; strides beyond it are replaced by dilation."""
    aspp_channels: int = 256
    """Channels of each of the five branches of the spatial pyramid."""
    aspp_rates: tuple[int, ...] = (12, 24, 36)
    """Dilation of the 3x3 branches of the spatial pyramid."""
    decoder_channels: int = 256
    """Hidden channels of every decoder."""
    start_at_mean: bool = False
    """Whether the depth decoder's last bias starts at the mean of the training labels."""
    dropout: float = 0.0
    """Probability that a hidden channel of a decoder is dropped before its last convolution."""
    depth_noise: str = "shared"
    """`shared`: one sigma for all pixels, learned; `per-pixel`: the network predicts it as well."""

    optimizer: str = "sgd"
    """`sgd` (Nesterov momentum 0.9) or `adamw`, for the network; sigma always has plain SGD."""
    learning_rate: float = 2.5e-3
    """Of the network, before the schedule `(1 - i / iterations) ** 0.9`."""
    warmup: int = 0
    """Iterations over which the learning rate first rises linearly."""
    weight_decay: float = 1e-4
    """Of the network; sigma is never decayed."""
    sigma_lr: float = 2e-2
    """Learning rate of the log variances, constant: sigma has to follow the losses to the end."""
    iterations: int = 50_000
    """Optimizer steps."""
    batch_size: int = 8
    """Images per optimizer step, over all processes and all parts."""
    accumulate: int = 1
    """Parts into which a step's batch is cut, to go through the network one after another."""
    freeze_batch_norm: bool = False
    """Whether batch norm keeps its running statistics as they are and normalises by them."""
    seed: int = 0
    """Decides the initial weights, the order of the images and their augmentation."""

    checkpoint_every: int = 500
    """Iterations between checkpoints; the last iteration is always saved."""
    eval_every: int = 2_500
    """Iterations between validations, which choose best.pt; 0 never looks at that split."""
    tensorboard: bool = True
    """Whether scalars and pictures go to the folder `tensorboard` too."""
    device: str = "auto"
    """`auto` takes the GPU if there is one."""
    num_workers: int = 2
    """Processes that decode images; unused when the decoded images are kept in memory."""
    precision: str = "float32"
    """`float32`, or `bf16`: the network's layers in bfloat16, its outputs and losses in float32."""
    compile: bool = False
    """Whether the network is compiled by torch.compile."""
    checkpoint_activations: bool = False
    """Whether activations are computed again in the backward pass, to save memory."""
    cache_mb: int = 512
    """Decode every image once and keep it, if all of them fit into so many megabytes."""

    def __post_init__(self) -> None:
        _check_choices("--tasks", self.tasks, TASKS)
        if not self.tasks or len(set(self.tasks)) != len(self.tasks):
            raise InputError("--tasks: name at least one task, and none of them twice")
        _check_choices("--backbone", (self.backbone,), BACKBONES)
        _check_choices("--optimizer", (self.optimizer,), ("sgd", "adamw"))
        _check_choices("--device", (self.device,), DEVICES)
        _check_choices("--preset", (self.preset,), tuple(PRESETS))
        self._check_weighting()
        self._check_depth_noise()
        if len(self.size) != 2 or min(self.size) < 8:
            raise InputError(f"--size: height and width should be at least 8; found {self.size}")
        _check_augmentation(self.size, self.scale, self.crop)
        _check_choices("--precision", (self.precision,), PRECISIONS)
        if self.compile and self.checkpoint_activations:
            raise InputError(
                "--compile: cannot be combined with --checkpoint-activations; the compiler decides "
                "by itself what to compute again"
            )
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise InputError(
                f"--accumulate: should divide --batch-size {self.batch_size}; "
                f"found {self.accumulate}"
            )
        if self.batch_size < (1 if self.freeze_batch_norm else 2 * self.accumulate):
            raise InputError(
                f"--batch-size: should be at least 2 for each of the {self.accumulate} parts, as "
                f"batch norm cannot train on the pooled features of one image; "
                f"found {self.batch_size}"
            )
        if self.stages not in (1, 2, 3, 4) or self.output_stride not in (4, 8, 16, 32):
            raise InputError("`stages` should be 1 to 4 and `output_stride` 4, 8, 16 or 32")
        if not 0 <= self.dropout < 1:
            raise InputError(f"--dropout: should be at least 0 and below 1; found {self.dropout}")
        for flag in ("iterations", "checkpoint_every", "aspp_channels", "decoder_channels"):
            if (value := getattr(self, flag)) < 1:
                raise InputError(f"{_flag(flag)}: should be at least 1; found {value}")
        for flag in ("learning_rate", "sigma_lr"):
            if not 0 < (value := getattr(self, flag)) < math.inf:
                raise InputError(f"{_flag(flag)}: should be above 0; found {value}")
        for flag in ("weight_decay", "warmup", "num_workers", "cache_mb", "seed", "eval_every"):
            if not 0 <= (value := getattr(self, flag)) < math.inf:
                raise InputError(f"{_flag(flag)}: should not be negative; found {value}")

    def _check_weighting(self) -> None:
        _check_choices("--estimator", (self.estimator,), ESTIMATORS)
        _check_choices("--form", (self.form,), FORMS)
        _check_choices("--constraint", (self.constraint,), CONSTRAINTS)
        initial_sigma(self.sigma_init)
        if not 0 < self.closed_form_momentum <= 1:
            raise InputError(
                f"--closed-form-momentum: should be above 0 and at most 1; "
                f"found {self.closed_form_momentum}"
            )
        if self.form == "liebel_koerner" and self.constraint == "unit_sum":
            raise InputError(
                "--constraint: unit_sum does not go with --form liebel_koerner, whose penalty is "
                "not the logarithm of its weight"
            )
        if fixed_weights(self.weighting, self.tasks) is None:
            return
        defaults = {f.name: f.default for f in dataclasses.fields(self)}
        for name in ("estimator", "form", "constraint", "sigma_init"):
            if getattr(self, name) != defaults[name]:
                raise InputError(
                    f"{_flag(name)}: needs --weighting uncertainty; found {self.weighting}"
                )

    def _check_depth_noise(self) -> None:
        _check_choices("--depth-noise", (self.depth_noise,), DEPTH_NOISE)
        if self.depth_noise == "shared":
            return
        if "depth" not in self.tasks:
            raise InputError("--depth-noise: per-pixel needs the task depth in --tasks")
        # Its scale is inside of the likelihood, where no other form and no constraint reaches it.
        for name, needed in (("weighting", "uncertainty"), ("form", "nll"), ("constraint", "none")):
            if (found := getattr(self, name)) != needed:
                raise InputError(
                    f"--depth-noise: per-pixel needs {_flag(name)} {needed}; found {found}"
                )


def _check_augmentation(
    size: tuple[int, int], scale: tuple[float, float], crop: tuple[int, int] | None
) -> None:
    if len(scale) != 2 or not 0 < scale[0] <= scale[1] < math.inf:
        raise InputError(
            f"--scale: should be two numbers above 0, the smaller first; found {scale}"
        )
    if crop is not None and (len(crop) != 2 or min(crop) < 8):
        raise InputError(f"--crop: height and width should be at least 8; found {crop}")
    smallest = tuple(round(side * scale[0]) for side in size)
    if any(side > limit for side, limit in zip(crop or size, smallest, strict=True)):
        raise InputError(
            f"--crop: {'x'.join(map(str, crop or size))} does not fit into an image of "
            f"{size[0]}x{size[1]} scaled by {scale[0]:g}"
        )


def fixed_weights(weighting: str, tasks: tuple[str, ...]) -> dict[str, float] | None:
    """Return the weight of each task by name, or None where the weights are learned."""
    if weighting == "uncertainty":
        return None
    if weighting == "equal":
        return {task: 1 / len(tasks) for task in tasks}
    kind, _, numbers = weighting.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")] if kind == "fixed" else []
    except ValueError:
        values = []
    if not values or not all(0 <= value < math.inf for value in values):
        raise InputError(
            f"--weighting: should be uncertainty, equal or fixed:w1,w2,... with numbers from 0 up; "
            f"found {weighting!r}"
        )
    if len(values) != len(tasks):
        raise InputError(
            f"--weighting: {weighting!r} has {len(values)} weights for {len(tasks)} tasks "
            f"({','.join(tasks)})"
        )
    return dict(zip(tasks, values, strict=True))


def initial_sigma(choice: str) -> float | None:
    """Return the number that `--sigma-init` gives, or None where the first batch decides."""
    if choice == "data":
        return None
    try:
        sigma = float(choice)
    except ValueError:
        sigma = math.nan
    if not 1e-6 <= sigma <= 1e6:  # the bounds of the library's heads
        raise InputError(f"--sigma-init: should be data or from 1e-6 to 1e6; found {choice!r}")
    return sigma


def new_config(given: dict[str, object]) -> TrainConfig:
    """Return the configuration of a new run: a preset, and the fields `given` instead of its."""
    preset = given.get("preset", "tiny")
    _check_choices("--preset", (preset,), tuple(PRESETS))
    return TrainConfig(**{**PRESETS[preset], **given})


def to_json(config: TrainConfig) -> str:
    """Return the text of config.json."""
    fields = {k: str(v) if isinstance(v, Path) else v for k, v in vars(config).items()}
    return json.dumps(fields, indent=2) + "\n"


def load_config(run: Path) -> TrainConfig:
    """Read the config.json of a run folder."""
    path = run / "config.json"
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder")
    if not path.is_file():
        raise InputError(f"{path}: not found, so {run} does not hold a training run")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        fields = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        # The folder may have been moved since: `out` is where the file was found.
        return TrainConfig(**{**fields, "data": Path(fields["data"]), "out": run})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: not a training configuration ({error})") from error


def resume_config(run: Path, given: dict[str, object]) -> TrainConfig:
    """Return a run's configuration with the flags `given` on resuming it.

    Only what leaves the weights alone may differ from the recorded run, and `iterations`, which
    stretches the schedule.
    """
    recorded = load_config(run)
    for name, value in given.items():
        if name not in _FREE_ON_RESUME and name != "out" and value != getattr(recorded, name):
            raise InputError(
                f"{_flag(name)}: {run} was started with {getattr(recorded, name)!r}; "
                f"--resume cannot change it to {value!r}"
            )
    return dataclasses.replace(recorded, **{**given, "out": run})


def _flag(field: str) -> str:
    return "--" + field.replace("_", "-")


def _check_choices(flag: str, found: tuple[str, ...], choices: tuple[str, ...]) -> None:
    for value in found:
        if value not in choices:
            raise InputError(f"{flag}: unknown {value!r}; choose from {', '.join(choices)}")
