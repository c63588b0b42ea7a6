"""The state that changes during training: how it is built, saved and restored."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import SGD, AdamW, Optimizer

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.files import Frame
from examples.cityscapes.model.network import Output
from examples.cityscapes.training.distributed import Ranks, distributed, joint_batch_norm
from examples.cityscapes.training.losses import build_loss
from examples.cityscapes.training.saved_run import (
    check_loss,
    check_optimizer,
    check_same_images,
    read_saved,
    sampler_of,
)
from examples.common.checked_weights import load_weights
from examples.common.device import check_compiler
from examples.common.errors import InputError, reason_of
from uncertainty_mtl import MultiTaskLoss, UncertaintyWeightedLoss

ByTask = dict[str, Tensor]


class ModelWithLoss(nn.Module):
    """Network and loss as one, so that several processes average the gradient of sigma too."""

    def __init__(self, model: nn.Module, loss_fn: nn.Module) -> None:
        super().__init__()
        self.model, self.loss_fn = model, loss_fn

    def forward(
        self, image: Tensor, targets: ByTask, masks: ByTask
    ) -> tuple[MultiTaskLoss, dict[str, Output]]:
        """Return the losses and the predictions."""
        predictions = self.model(image)
        return self.loss_fn(predictions, targets, masks), predictions


class StepStart:
    """A copy of what the forward passes of a step change, made before them.

    Used as a context, it undoes a step that fails inside. What the optimizers do after it cannot be
    undone: until `is_whole` is set again, the state is not worth saving.

    Args:
        tensors: The statistics of batch norm, and the sigmas, which the first forward pass may
            initialise or clamp. Copying them takes less than a hundredth of a step.
        device: The device whose random numbers the step uses.
    """

    def __init__(self, tensors: list[Tensor], device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self.is_whole = True
        """Whether the state is that of a completed iteration."""

    def __enter__(self) -> None:
        self.is_whole = False
        self._values = [tensor.detach().clone() for tensor in self.tensors]
        self._random = random_states(self.device)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            return
        with torch.no_grad():
            for tensor, value in zip(self.tensors, self._values, strict=True):
                tensor.copy_(value)
        set_random_states(self._random, self.device)
        self.is_whole = True


class TrainingState(NamedTuple):
    """Everything that changes during training, beside the iteration."""

    model: nn.Module
    loss_fn: UncertaintyWeightedLoss
    optimizers: list[Optimizer]
    module: nn.Module
    """Network and loss as one module, which each process calls on its share of a batch."""
    start: StepStart
    """Undoes a step that fails."""


class Progress(NamedTuple):
    """How far a run has come."""

    iteration: int = 0
    best: float | None = None
    """The lowest selection error so far."""
    validated: int = 0
    """The iteration after which the last validation took place."""


def build_state(model: nn.Module, config: TrainConfig, ranks: Ranks) -> TrainingState:
    """Put the network on its device, with a loss and optimizers that have learned nothing yet."""
    model = joint_batch_norm(model, ranks)
    model.to(ranks.device).to(memory_format=torch.channels_last)
    if config.compile:
        check_compiler(ranks.device)
        model.compile()  # in place: the names in its state dict stay as they are
    loss_fn = build_loss(config).to(ranks.device)
    optimizers = build_optimizers(model, loss_fn, config)
    module = distributed(ModelWithLoss(model, loss_fn), ranks)
    changing = [*model.buffers(), *loss_fn.parameters(), *loss_fn.buffers()]
    start = StepStart(changing, ranks.device)
    return TrainingState(model, loss_fn, optimizers, module, start)


def build_optimizers(
    model: nn.Module, loss_fn: UncertaintyWeightedLoss, config: TrainConfig
) -> list[Optimizer]:
    """Return the network's optimizer and, where sigma is learned, sigma's own.

    Sigma has plain SGD: neither weight decay, which would pull it to 1, nor momentum, which would
    go on moving it through batches without labels.
    """
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        optimizers: list[Optimizer] = [AdamW(model.parameters(), **settings)]
    else:
        optimizers = [SGD(model.parameters(), momentum=0.9, nesterov=True, **settings)]
    if groups := loss_fn.param_groups(lr=config.sigma_lr):
        optimizers.append(SGD(groups))
        loss_fn.check_optimizer(optimizers[-1])
    return optimizers


def set_training_mode(state: TrainingState, config: TrainConfig) -> None:
    """Switch to training mode; frozen batch norm stays in evaluation mode."""
    state.module.train()
    if config.freeze_batch_norm:
        for layer in state.model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.eval()


def clip_gradient(model: nn.Module, config: TrainConfig) -> None:
    """Scale the gradient of the network down to `--clip-grad-norm`, if that is given.

    The gradient of sigma is left out. A large loss would otherwise shrink the step of its own
    sigma, which is what lowers the weight of that loss.
    """
    if config.clip_grad_norm is not None:
        # Nothing has to be unscaled before: bfloat16 trains without a GradScaler.
        clip_grad_norm_(model.parameters(), config.clip_grad_norm)


def snapshot(
    state: TrainingState,
    progress: Progress,
    config: TrainConfig,
    frames: Sequence[Frame],
    ranks: Ranks,
) -> dict[str, Any]:
    """Return the contents of a checkpoint; all processes have to call it."""
    states = random_states(ranks.device)
    rng = {device: ranks.gather(random_state) for device, random_state in states.items()}
    return {
        **progress._asdict(),
        "model": state.model.state_dict(),
        "loss": state.loss_fn.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
        # The learning rate and the order of images follow from the iteration and these values.
        "schedule": {"iterations": config.iterations, "learning_rate": config.learning_rate},
        "sampler": sampler_of(config.seed, frames),
        "rng": rng,
    }


def restore(path: Path, state: TrainingState, frames: Sequence[Frame], ranks: Ranks) -> Progress:
    """Load a checkpoint into `state`; returns how far it had come."""
    saved = read_saved(path)
    try:
        check_same_images(saved, frames)
        load_weights(state.model, saved["model"])
        if saved["loss"]:  # runs with fixed weights used to save nothing of their loss
            state.loss_fn.load_state_dict(saved["loss"])
            check_loss(state.loss_fn)
        for optimizer, saved_state in zip(state.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(saved_state)
            check_optimizer(optimizer)
        # A process that the run did not have before keeps the state that its seed has set.
        states = {d: of[ranks.index] for d, of in saved["rng"].items() if ranks.index < len(of)}
        set_random_states(states, ranks.device)
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise InputError(
            f"{path}: does not fit the run's config.json ({reason_of(error)})"
        ) from error
    return Progress(saved["iteration"], saved["best"], saved["validated"])


def random_states(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the random numbers that training uses."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    """Go on from states of the random numbers."""
    if "cpu" in states:
        torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def scheduled_rate(config: TrainConfig, iteration: int) -> float:
    """Return the network's learning rate: a linear warm-up times the paper's decay."""
    warmup = min(1.0, (iteration + 1) / (config.warmup + 1))
    return config.learning_rate * warmup * (1 - iteration / config.iterations) ** 0.9
