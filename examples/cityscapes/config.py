"""Everything that decides a training run, as one checked and saved dataclass."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.cityscapes.presets import PRESETS
from examples.cityscapes.protocols import PROTOCOLS
from examples.cityscapes.settings import TASKS, check_choices, check_config
from examples.cityscapes.weighting import check_weighting, overridden
from examples.common.errors import InputError
from examples.common.records import read_object


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run; the defaults are the paper's Tiny CityScapes setting."""

    data: Path
    """Root of the dataset, in the official layout (`leftImg8bit/`, `gtFine/`, `disparity/`,
    `camera/`), or as `prepare` has written it."""
    out: Path
    """Folder of the run: config.json, metrics.jsonl, last.pt and more."""
    preset: str = "tiny"
    """Named settings for the fields that are not given: `tiny`, `full`, `demo` or `quick`."""
    protocol: str = "three-task"
    """`three-task` is the paper's protocol; `two-task` has 7 classes, and inverse depth in which 0
    means unknown. The protocol decides the tasks if `tasks` is not given."""
    tasks: tuple[str, ...] = TASKS
    """The tasks to train; the weights of `fixed:` are given in this order."""
    labels: str = "gtFine"
    """Labels of the training images: `gtFine`, or `gtCoarse`, which also uses `train_extra`."""
    weighting: str = "uncertainty"
    """`uncertainty` (learned), `equal` (1/K each), `fixed:w1,w2,...` in the order of `tasks`, or
    `random` (new weights in every step, as a control)."""
    estimator: str = "learned"
    """How sigma is found: `learned` by gradient, or `closed_form` from a running mean."""
    closed_form_momentum: float = 0.1
    """Share of the newest batch in the running mean of `closed_form`."""
    form: str = "symmetric"
    """How a task's loss and its sigma are combined: `symmetric` (which fits the paper's own
    curves), `nll`, `paper`, `libmtl` or `liebel_koerner`."""
    constraint: str = "none"
    """`none`; `unit_sum`, which keeps the sum of the learned weights at 1; or, with the estimator
    `closed_form`, `softmax`: the weights are the softmax of 1 / (loss * temperature)."""
    temperature: float | None = None
    """Temperature of `softmax`; search for the best one, as it depends on the losses' units."""
    sigma_init: str = "data"
    """Initial sigma of every task: a number, or `data`, the optimum of its first labelled batch."""
    size: tuple[int, int] = (128, 256)
    """Height and width of the network's input; the images are resized to it."""
    flip: bool = True
    """Whether half of the training images are mirrored."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest factor by which a training image of `size` is scaled."""
    crop: tuple[int, int] | None = None
    """Height and width of the crop from the scaled training image; None: as large as `size`."""

    backbone: str = "resnet101"
    """The ResNet whose convolutions make the trunk."""
    backbone_weights: str = "auto"
    """Initial weights of the trunk: `imagenet`, `none`, the path of a ResNet state dict, or `auto`,
    which is `imagenet`, or `none` if there is no network connection."""
    init_from: Path | None = None
    """Another run's folder, or one of its checkpoints: this run starts with that network's weights.
    None: the trunk starts with `backbone_weights`, and `seed` decides all other weights."""
    init_partly: bool = False
    """Whether `init_from` may lack weights or have them in another shape; these weights then start
    as they would without `init_from`."""
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
    """`shared`: one learned sigma for all pixels; `per-pixel`: the network predicts each sigma."""

    optimizer: str = "sgd"
    """`sgd` (Nesterov momentum 0.9) or `adamw`, for the network; sigma always has plain SGD."""
    learning_rate: float = 2.5e-3
    """Learning rate of the network, before the schedule `(1 - i / iterations) ** 0.9`."""
    warmup: int = 0
    """Iterations over which the learning rate first rises linearly."""
    weight_decay: float = 1e-4
    """Weight decay of the network; sigma is never decayed."""
    clip_grad_norm: float | None = None
    """Largest norm of the network's gradient: larger gradients are scaled down. None: no limit."""
    sigma_lr: float = 2e-2
    """Constant learning rate of the log variances: sigma has to follow the losses to the end."""
    iterations: int = 50_000
    """Optimizer steps."""
    batch_size: int = 8
    """Images per optimizer step, over all processes and all parts."""
    accumulate: int = 1
    """Parts into which a step's batch is split; they go through the network one after another."""
    freeze_batch_norm: bool = False
    """Whether batch norm keeps its running statistics as they are and normalises by them."""
    seed: int = 0
    """Decides the initial weights, the order of the images and their augmentation."""

    checkpoint_every: int = 500
    """Iterations between checkpoints; the last iteration is always saved."""
    eval_every: int = 2_500
    """Iterations between validations, which choose best.pt; 0 turns validation off."""
    tensorboard: bool = True
    """Whether to write scalars and pictures for TensorBoard too, to the folder `tensorboard`."""
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
    """Decode every image only once and keep it in memory, if all fit into this many megabytes."""

    def __post_init__(self) -> None:
        check_config(self)
        check_weighting(self)


def new_config(given: dict[str, Any]) -> TrainConfig:
    """Return the configuration of a new run: a preset, in which the fields `given` are replaced."""
    preset = given.get("preset", "tiny")
    check_choices("--preset", (preset,), tuple(PRESETS))
    protocol = given.get("protocol", "three-task")
    check_choices("--protocol", (protocol,), tuple(PROTOCOLS))
    given = {"tasks": PROTOCOLS[protocol].tasks, **given}
    if given.get("depth_noise") == "per-pixel":  # the only form that allows it
        given = {"form": "nll", **given}
    return TrainConfig(**{**PRESETS[preset], **given})


def to_json(config: TrainConfig) -> str:
    """Return the text of config.json."""
    fields = {name: recorded(name, value) for name, value in vars(config).items()}
    return json.dumps(fields, indent=2) + "\n"


def recorded(name: str, value: Any) -> Any:
    """Return a field as recorded; paths become absolute, as a resume may be in another folder."""
    if name == "backbone_weights" and value not in ("auto", "imagenet", "none"):
        value = Path(value)
    return str(value.absolute()) if isinstance(value, Path) else value


def load_config(run: Path) -> TrainConfig:
    """Read the config.json of a run folder."""
    path = run / "config.json"
    if not run.is_dir():
        raise InputError(f"{run}: no such run folder")
    if not path.is_file():
        raise InputError(f"{path}: not found, so {run} does not hold a training run")
    fields = read_fields(path, "correct the file by hand")
    try:
        # The folder may have been moved since: `out` is where the file was found.
        return TrainConfig(**{**fields, "out": run})
    except InputError as error:
        raise InputError(f"{path}: {error}; correct the file by hand") from error


def read_fields(path: Path, way_out: str) -> dict[str, Any]:
    """Read the fields of a config.json by name.

    Fields that had no effect on the run have their defaults, and so have those that the file of an
    older version lacks.

    Args:
        path: The file.
        way_out: What the user can do if it holds anything else.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(TrainConfig)}
    fields: dict[str, Any] = dict(defaults)
    for name, value in read_object(path, TrainConfig, way_out).items():
        is_path = name in ("data", "out", "init_from") and value is not None
        fields[name] = Path(value) if is_path else tuple(value) if type(value) is list else value
    # Older versions accepted any value of such fields, and had other defaults.
    return defaults | overridden(fields, {})
