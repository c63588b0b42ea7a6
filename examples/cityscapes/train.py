"""Training, from top to bottom: `train`, its steps, and what they are built from."""

import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from tqdm import tqdm

from examples.cityscapes.augment import Augmentation
from examples.cityscapes.checkpoint import read_checkpoint, save_checkpoint, write_atomically
from examples.cityscapes.config import TrainConfig, to_json
from examples.cityscapes.data import Batch, CityscapesDataset, TrainingOrder, batches
from examples.cityscapes.device import check_compiler, pick_device
from examples.cityscapes.errors import InputError
from examples.cityscapes.initial import backbone_state, initial_model
from examples.cityscapes.losses import base_losses, build_loss
from examples.cityscapes.metric_log import MetricLog, cut_log
from examples.cityscapes.model import SceneNet


class TrainingState(NamedTuple):
    """Everything that changes during training, beside the iteration."""

    model: SceneNet
    loss_fn: nn.Module
    optimizers: list[Optimizer]


def train(config: TrainConfig, *, resume: bool = False, deadline: float | None = None) -> int:
    """Train a network and leave config.json, metrics.jsonl and last.pt in `config.out`.

    Args:
        config: What to train, on what, and where to.
        resume: Whether to go on from the last checkpoint in `config.out`.
        deadline: `time.monotonic()` after which training saves and stops early.

    Returns:
        How many iterations the network has been trained for.

    Raises:
        InputError: Before anything is written, if an input is missing or broken.
        NonFiniteLossError: If a loss becomes infinite or nan.
    """
    check_run_folder(config.out, resume)
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    dataset = training_data(config)
    checkpoint = config.out / "last.pt"
    resume = resume and checkpoint.is_file()  # killed before its first checkpoint: from the start
    weights = None
    if not resume:  # a checkpoint holds the trunk's weights
        weights = backbone_state(config.backbone, config.backbone_weights)
        if weights is None:
            config = dataclasses.replace(config, backbone_weights="none")
    state = build_state(initial_model(config, dataset, weights), config, device)
    first = restore(checkpoint, state) if resume else 0

    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "config.json", to_json(config))
    cut_log(config.out / "metrics.jsonl", first)
    log = MetricLog(config.out / "metrics.jsonl")

    done = first
    order = training_order(config, dataset, first)
    with tqdm(total=config.iterations, initial=first, desc="training", unit="step") as bar:
        for batch in load(config, dataset, order, device):
            train_one_step(state, batch, config, done, log)
            done += 1
            show_progress(bar, log)
            out_of_time = deadline is not None and time.monotonic() > deadline
            if out_of_time or done % config.checkpoint_every == 0 or done == config.iterations:
                log.flush()  # before saving: it raises if the weights are not worth saving
                save(checkpoint, state, done)
            if out_of_time:
                break
    return done


def train_one_step(
    state: TrainingState, batch: Batch, config: TrainConfig, iteration: int, log: MetricLog
) -> None:
    """Take one optimizer step and log it."""
    learning_rate = scheduled_rate(config, iteration)
    for group in state.optimizers[0].param_groups:
        group["lr"] = learning_rate

    predictions = state.model(batch.image)
    total, tasks = state.loss_fn(predictions, batch.targets, batch.masks)
    plain = {"iteration": iteration, "learning_rate": learning_rate}
    # Now, as the step below changes sigma. Tensors, no `.item()`: reading one makes the GPU wait.
    log.add(plain, measurements(state.loss_fn, predictions, batch, tasks))

    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)
    total.backward()
    for optimizer in state.optimizers:
        optimizer.step()


@torch.no_grad()
def measurements(
    loss_fn: nn.Module, predictions: dict[str, Tensor], batch: Batch, nll: dict[str, Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Return what is logged of a step, by quantity and task."""
    losses = base_losses(predictions, batch.targets, batch.masks)
    return {
        "loss": {task: loss.mean() for task, loss in losses.items()},
        "num_labelled": {task: loss.num_valid for task, loss in losses.items()},
        "nll": nll,
        "sigma": loss_fn.sigmas(),
        "weight": loss_fn.weights(),
    }


def scheduled_rate(config: TrainConfig, iteration: int) -> float:
    """Return the network's learning rate: a linear warm-up times the paper's decay."""
    warmup = min(1.0, (iteration + 1) / (config.warmup + 1))
    return config.learning_rate * warmup * (1 - iteration / config.iterations) ** 0.9


def build_state(model: SceneNet, config: TrainConfig, device: torch.device) -> TrainingState:
    """Put the network on its device, with a loss and optimizers that have learned nothing yet."""
    model.to(device, memory_format=torch.channels_last).train()
    if config.compile:
        check_compiler(device)
        model.compile()  # in place: the names in its state dict stay as they are
    loss_fn = build_loss(config).to(device)
    return TrainingState(model, loss_fn, build_optimizers(model, loss_fn, config))


def build_optimizers(model: nn.Module, loss_fn: nn.Module, config: TrainConfig) -> list[Optimizer]:
    """Return the network's optimizer and, where sigma is learned, sigma's own.

    Sigma has plain SGD: neither weight decay, which would pull it to 1, nor momentum, which would
    go on moving it through batches without labels.
    """
    settings = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.optimizer == "adamw":
        optimizers: list[Optimizer] = [AdamW(model.parameters(), **settings)]
    else:
        optimizers = [SGD(model.parameters(), momentum=0.9, nesterov=True, **settings)]
    if groups := loss_fn.param_groups(lr=config.sigma_lr):
        optimizers.append(SGD(groups))
        loss_fn.check_optimizer(optimizers[-1])
    return optimizers


def training_data(config: TrainConfig) -> CityscapesDataset:
    """Open the training split and check that it fills a batch."""
    augmentation = Augmentation(config.flip, config.scale, config.crop)
    dataset = CityscapesDataset(config.data, "train", config.size, config.tasks, augmentation)
    if len(dataset) < config.batch_size:
        raise InputError(
            f"--batch-size: {config.batch_size} images do not fit into the {len(dataset)} of "
            f"{config.data}/leftImg8bit/train"
        )
    dataset.keep(config.cache_mb)
    return dataset


def training_order(config: TrainConfig, dataset: CityscapesDataset, first: int) -> TrainingOrder:
    """Return the batches from iteration `first` to the last."""
    return TrainingOrder(
        len(dataset),
        config.batch_size,
        start=first,
        stop=config.iterations,
        seed=config.seed,
        augment=config.flip or config.crop is not None or config.scale != (1.0, 1.0),
    )


def load(
    config: TrainConfig, dataset: CityscapesDataset, order: TrainingOrder, device: torch.device
) -> Iterator[Batch]:
    """Yield the batches on the device."""
    for batch in batches(
        dataset,
        order,
        config.tasks,
        num_workers=config.num_workers,
        pin_memory=device.type == "cuda",
    ):
        yield batch.to(device)


def check_run_folder(out: Path, resume: bool) -> None:
    """Raise if a run would be overwritten, or `out` cannot be a folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if not resume and any((out / name).exists() for name in ("config.json", "last.pt")):
        raise InputError(f"--out: {out} already holds a run; go on with it by --resume")


def save(path: Path, state: TrainingState, iteration: int) -> None:
    """Write the checkpoint; the order of the images follows from the seed and the iteration."""
    save_checkpoint(
        path,
        {
            "iteration": iteration,
            "model": state.model.state_dict(),
            "loss": state.loss_fn.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in state.optimizers],
            "rng": torch.get_rng_state(),
        },
    )


def restore(path: Path, state: TrainingState) -> int:
    """Load a checkpoint into `state`; returns its iteration."""
    saved = read_checkpoint(path)
    try:
        state.model.load_state_dict(saved["model"])
        state.loss_fn.load_state_dict(saved["loss"])
        for optimizer, saved_state in zip(state.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(saved_state)
        torch.set_rng_state(saved["rng"])
        return int(saved["iteration"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[-1].strip()
        raise InputError(f"{path}: does not fit the run's config.json ({reason})") from error


def show_progress(bar: tqdm, log: MetricLog) -> None:
    """Advance the bar; the losses beside it are those last written."""
    bar.update()
    losses = log.latest.get("loss", {})
    bar.set_postfix({t: f"{v:.3g}" for t, v in losses.items() if v is not None}, refresh=False)
