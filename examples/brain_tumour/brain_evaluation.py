"""A run's figures of merit on the validation cases."""

import argparse
import dataclasses
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from examples.brain_tumour.brain_config import DEVICES, BrainConfig, load_config
from examples.brain_tumour.brain_losses import build_loss, learned_sigmas
from examples.brain_tumour.brain_metrics import REGIONS, masked_mse, region_dice
from examples.brain_tumour.brain_training import numbers
from examples.brain_tumour.data import Split, batches, open_split
from examples.brain_tumour.model import RSNet
from examples.common.checked_weights import load_weights
from examples.common.checkpoint import read_checkpoint, write_atomically
from examples.common.device import pick_device
from examples.common.errors import InputError, reason_of
from uncertainty_mtl import UncertaintyWeightedLoss

Metrics = dict[str, Any]


def evaluate(config: BrainConfig) -> Metrics:
    """Measure the run in `config.out` and write its metrics.json."""
    device = pick_device(config.device)
    model, loss_fn = load_trained(config)
    metrics = measure(model.to(device), open_split(config, "val"), config.missing, device)
    metrics["weight"] = weight = numbers(loss_fn.weights())
    metrics["sigma"] = numbers(learned_sigmas(loss_fn))
    # The weight of segmentation relative to that of synthesis, as in the report's table.
    synthesis = weight["synthesis"]
    metrics["weight_ratio"] = weight["segmentation"] / synthesis if synthesis else None
    write_atomically(config.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def load_trained(config: BrainConfig) -> tuple[RSNet, UncertaintyWeightedLoss]:
    """Return the network and the loss of a run's last checkpoint."""
    path = config.out / "last.pt"
    saved = read_checkpoint(path)
    model = RSNet(config.missing, config.base_width, config.dropout)
    loss_fn = build_loss(config)
    try:
        load_weights(model, saved["model"])
        if saved["loss"]:  # runs with manual weights used to save nothing of their loss
            loss_fn.load_state_dict(saved["loss"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{path}: does not fit the run's config.json ({reason_of(error)})"
        ) from error
    return model, loss_fn


@torch.no_grad()
def measure(model: RSNet, split: Split, missing: str, device: torch.device) -> Metrics:
    """Return the means over cases; a Dice is None if no case is labelled."""
    model.eval()
    errors: list[float] = []
    overlaps: dict[str, list[float]] = {region: [] for region in REGIONS}
    for batch in batches(split, ([index] for index in range(len(split))), missing):
        inputs, targets, masks = batch.to(device)
        outputs = model(inputs)
        brain = masks["synthesis"]
        image: Any = targets["synthesis"]  # every case has one
        errors.append(masked_mse(outputs["synthesis"][:, 0], image[:, 0], brain))
        if targets["segmentation"] is not None:
            classes = outputs["segmentation"].argmax(dim=1)
            for region, value in region_dice(classes, targets["segmentation"], brain).items():
                overlaps[region].append(value)
    means = {f"dice_{r}": fmean(values) if values else None for r, values in overlaps.items()}
    labelled = len(overlaps["whole"])
    return {**means, "mse": fmean(errors), "cases": len(split), "labelled_cases": labelled}


def summary(metrics: Metrics) -> str:
    """Return the figures as lines for the terminal."""
    names = [*(f"dice_{region}" for region in REGIONS), "mse", "weight_ratio"]
    lines = [f"{name:15} {show(metrics[name])}" for name in names]
    return "\n".join([*lines, f"{'cases':15} {metrics['cases']}"])


def show(value: float | None) -> str:
    """Return a number for people, or a dash where there is none."""
    return "-" if value is None else f"{value:.4f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run; metrics.json goes there")
    add("--data", type=Path, help="BraTS folder, if it has moved since")
    add("--device", choices=DEVICES)


def run(run: Path, **given: Any) -> None:
    """Measure a run on the validation cases."""
    print(summary(evaluate(dataclasses.replace(load_config(run), **given))))
