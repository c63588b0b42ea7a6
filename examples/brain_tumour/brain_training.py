"""Training, from top to bottom: `train`, its steps, and what they are built from."""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Adam, Optimizer
from tqdm import tqdm

from examples.brain_tumour.brain_config import BrainConfig, add_settings, to_json
from examples.brain_tumour.brain_losses import build_loss, learned_sigmas
from examples.brain_tumour.data import VolumeBatch, batches, open_split, training_order
from examples.brain_tumour.model import RSNet, count_parameters
from examples.common.checkpoint import save_checkpoint, write_atomically
from examples.common.device import pick_device
from examples.common.errors import InputError, NonFiniteLossError
from uncertainty_mtl import UncertaintyWeightedLoss


def train(config: BrainConfig) -> None:
    """Train a network and leave config.json, metrics.jsonl and last.pt in `config.out`.

    Raises:
        InputError: Before anything is written, if an input is missing or its header is broken.
        NonFiniteLossError: If a loss becomes infinite or nan.
    """
    check_run_folder(config.out)
    device = pick_device(config.device)
    split = open_split(config, "train")
    torch.manual_seed(config.seed)
    model = RSNet(config.missing, config.base_width, config.dropout).to(device).train()
    loss_fn = build_loss(config).to(device)
    optimizer = build_optimizer(model, loss_fn, config)
    print(f"RS-Net with {count_parameters(model):,} parameters on {device}, {len(split)} cases")

    config.out.mkdir(parents=True, exist_ok=True)
    write_atomically(config.out / "config.json", to_json(config))
    order = batches(split, training_order(config, len(split)), config.missing)
    progress = tqdm(order, total=config.iterations, desc="training", unit="step")
    with (config.out / "metrics.jsonl").open("w", encoding="utf-8", buffering=1) as log:
        for iteration, batch in enumerate(progress):
            line = train_one_step(model, loss_fn, optimizer, batch.to(device))
            check_finite(line, iteration)
            log.write(json.dumps({"iteration": iteration, **line}) + "\n")
            progress.set_postfix(
                {task: f"{v:.3g}" for task, v in line["loss"].items() if v is not None},
                refresh=False,
            )
            done = iteration + 1
            if done % config.checkpoint_every == 0 or done == config.iterations:
                save(config.out / "last.pt", model, loss_fn, optimizer, done)


def train_one_step(
    model: RSNet, loss_fn: UncertaintyWeightedLoss, optimizer: Optimizer, batch: VolumeBatch
) -> dict[str, Any]:
    """Take one optimizer step; returns what is logged of it."""
    losses = loss_fn(model(batch.inputs), batch.targets, batch.masks)
    line: dict[str, Any] = {
        "loss": numbers(losses.errors),
        "nll": numbers(losses.tasks),
        "sigma": numbers(learned_sigmas(loss_fn)),
        "weight": numbers(loss_fn.weights()),
    }
    # Without labels there is no loss, and 0 or nan would look like a perfect or a broken one.
    line["loss"] = {t: v if batch.targets[t] is not None else None for t, v in line["loss"].items()}

    optimizer.zero_grad(set_to_none=True)
    losses.total.backward()
    optimizer.step()
    return line


def build_optimizer(
    model: nn.Module, loss_fn: UncertaintyWeightedLoss, config: BrainConfig
) -> Optimizer:
    """Return Adam over the network and, in a group of its own, sigma."""
    network = {"params": model.parameters(), "lr": config.lr}
    optimizer = Adam([network, *loss_fn.param_groups(lr=config.sigma_lr)])
    if config.weighting == "uncertainty":
        loss_fn.check_optimizer(optimizer)
    return optimizer


def numbers(tensors: dict[str, torch.Tensor]) -> dict[str, float]:
    """Read 0-dim tensors; a 3-D step takes far longer than this makes the host wait."""
    return {task: tensor.item() for task, tensor in tensors.items()}


def check_finite(line: dict[str, Any], iteration: int) -> None:
    """Raise if training has diverged, before the checkpoint is overwritten."""
    for quantity, by_task in line.items():
        for task, value in by_task.items():
            if value is not None and not math.isfinite(value):
                raise NonFiniteLossError(
                    f"iteration {iteration}: the {quantity} of task {task!r} is {value}; "
                    "try a lower --lr",
                    iteration,
                )


def check_run_folder(out: Path) -> None:
    """Raise if a run would be overwritten, or `out` cannot be a folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if any((out / name).exists() for name in ("config.json", "metrics.jsonl", "last.pt")):
        raise InputError(f"--out: {out} already holds a run; choose another folder")


def save(
    path: Path,
    model: nn.Module,
    loss_fn: UncertaintyWeightedLoss,
    optimizer: Optimizer,
    iteration: int,
) -> None:
    """Write the checkpoint."""
    state = {
        "iteration": iteration,
        "model": model.state_dict(),
        "loss": loss_fn.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    save_checkpoint(path, state)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--out", type=Path, required=True, help="new folder for the run")
    add("--data", type=Path, help="folder of BraTS cases; volumes are generated without it")
    add("--weighting", help="uncertainty, or manual:SEGMENTATION,SYNTHESIS such as manual:0.1,1.0")
    add("--seed", type=int, metavar="S")
    add_settings(parser)


def run(**given: Any) -> None:
    """Train a network."""
    train(BrainConfig(**given))
