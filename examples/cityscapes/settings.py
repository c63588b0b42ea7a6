"""Checks of a run's settings, and what their short forms stand for."""

import math
from typing import Any

from examples.cityscapes.presets import PRESETS
from examples.cityscapes.protocols import PROTOCOLS, THREE_TASK
from examples.common.errors import InputError
from examples.common.flag_text import flag_of
from examples.common.records import check_whole_numbers

TASKS = THREE_TASK.tasks
BACKBONES = ("resnet18", "resnet34", "resnet50", "resnet101")
DEVICES = ("auto", "cpu", "cuda")
ESTIMATORS = ("learned", "closed_form")
FORMS = ("nll", "symmetric", "paper", "libmtl", "liebel_koerner")
CONSTRAINTS = ("none", "unit_sum", "softmax")
PRECISIONS = ("float32", "bf16")
DEPTH_NOISE = ("shared", "per-pixel")
LABELS = ("gtFine", "gtCoarse")


def check_config(config: Any) -> None:
    """Raise unless the settings of a run, a `TrainConfig`, are in range and go together."""
    check_whole_numbers(vars(config))
    check_choices("--protocol", (config.protocol,), tuple(PROTOCOLS))
    check_choices("--tasks", config.tasks, PROTOCOLS[config.protocol].tasks)
    if not config.tasks or len(set(config.tasks)) != len(config.tasks):
        raise InputError("--tasks: name at least one task, and none of them twice")
    check_choices("--labels", (config.labels,), LABELS)
    check_choices("--backbone", (config.backbone,), BACKBONES)
    check_choices("--optimizer", (config.optimizer,), ("sgd", "adamw"))
    check_choices("--device", (config.device,), DEVICES)
    check_choices("--preset", (config.preset,), tuple(PRESETS))
    if len(config.size) != 2 or min(config.size) < 8:
        raise InputError(f"--size: height and width should be at least 8; found {config.size}")
    _check_augmentation(config.size, config.scale, config.crop)
    check_choices("--precision", (config.precision,), PRECISIONS)
    if config.compile and config.checkpoint_activations:
        raise InputError(
            "--compile: cannot be combined with --checkpoint-activations; the compiler decides "
            "by itself what to compute again"
        )
    if config.accumulate < 1 or config.batch_size % config.accumulate:
        raise InputError(
            f"--accumulate: should divide --batch-size {config.batch_size}; "
            f"found {config.accumulate}"
        )
    if config.batch_size < (1 if config.freeze_batch_norm else 2 * config.accumulate):
        raise InputError(
            f"--batch-size: should be at least 2 for each of the {config.accumulate} parts, as "
            f"batch norm cannot train on the pooled features of one image; "
            f"found {config.batch_size}"
        )
    if config.stages not in (1, 2, 3, 4) or config.output_stride not in (4, 8, 16, 32):
        raise InputError("`stages` should be 1 to 4 and `output_stride` 4, 8, 16 or 32")
    if not config.aspp_rates or min(config.aspp_rates) < 1:
        raise InputError(
            f"--aspp-rates: should be numbers from 1 up; found {config.aspp_rates or 'none'}"
        )
    if not 0 <= config.dropout < 1:
        raise InputError(f"--dropout: should be at least 0 and below 1; found {config.dropout}")
    for flag in ("iterations", "checkpoint_every", "aspp_channels", "decoder_channels"):
        if (value := getattr(config, flag)) < 1:
            raise InputError(f"{flag_of(flag)}: should be at least 1; found {value}")
    for flag in ("learning_rate", "sigma_lr"):
        if not 0 < (value := getattr(config, flag)) < math.inf:
            raise InputError(f"{flag_of(flag)}: should be above 0; found {value}")
    if config.clip_grad_norm is not None and not 0 < config.clip_grad_norm < math.inf:
        raise InputError(
            f"--clip-grad-norm: should be above 0, or none; found {config.clip_grad_norm}"
        )
    if config.init_partly and config.init_from is None:
        raise InputError("--init-partly: needs --init-from")
    for flag in ("weight_decay", "warmup", "num_workers", "cache_mb", "seed", "eval_every"):
        if not 0 <= (value := getattr(config, flag)) < math.inf:
            raise InputError(f"{flag_of(flag)}: should not be negative; found {value}")


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


def are_learned(weighting: str) -> bool:
    """Whether the weights follow from the losses, rather than from `--weighting` itself."""
    return weighting == "uncertainty"


def fixed_weights(weighting: str, tasks: tuple[str, ...]) -> dict[str, float] | None:
    """Return the weight of each task by name, or None where the weights are learned.

    Random weights multiply these, which are 1; see `draw_weights`.
    """
    if are_learned(weighting):
        return None
    if weighting == "random":
        return dict.fromkeys(tasks, 1.0)
    if weighting == "equal":
        return {task: 1 / len(tasks) for task in tasks}
    kind, _, numbers = weighting.partition(":")
    try:
        values = [float(number) for number in numbers.split(",")] if kind == "fixed" else []
    except ValueError:
        values = []
    if not values or not all(0 <= value < math.inf for value in values):
        raise InputError(
            f"--weighting: should be uncertainty, equal, random or fixed:w1,w2,... with numbers "
            f"from 0 up; found {weighting!r}"
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


def check_three_tasks(config: Any, what: str) -> None:
    """Raise where a run has another protocol than the one that `what` is made for."""
    if config.protocol != THREE_TASK.name:
        raise InputError(
            f"{what}: needs a run with --protocol {THREE_TASK.name}; {config.out} was trained with "
            f"--protocol {config.protocol}, whose figures `evaluate` prints"
        )


def check_choices(flag: str, found: tuple[str, ...], choices: tuple[str, ...]) -> None:
    """Raise unless every value is one of the choices."""
    for value in found:
        if value not in choices:
            raise InputError(f"{flag}: unknown {value!r}; choose from {', '.join(choices)}")
