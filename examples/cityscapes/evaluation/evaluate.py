"""A run's figures of merit on the validation split, beside those of two baselines."""

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import in_order
from examples.cityscapes.data.read_image import image_size
from examples.cityscapes.evaluation.baselines import position_prior
from examples.cityscapes.evaluation.metrics import SplitMetrics, predict_maps
from examples.cityscapes.evaluation.official import (
    check_installed,
    images_to_export,
    official_figures,
)
from examples.cityscapes.evaluation.tables import full_summary
from examples.cityscapes.flags import add_checkpoint_flag, add_grouping_flags
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.model.start import backbone_state, initial_model
from examples.cityscapes.scene.grouping import Grouping, group_pixels
from examples.cityscapes.settings import DEVICES
from examples.common.checked_weights import load_weights
from examples.common.checkpoint import read_checkpoint, write_atomically
from examples.common.device import pick_device
from examples.common.errors import InputError
from examples.common.lock import locked

Metrics = dict[str, Any]
Predictor = Callable[[Tensor], dict[str, Tensor]]
"""From images (B, 3, H, W) to maps by task: train ids (B, H, W), offsets (B, 2, H, W) and
disparity (B, 1, H, W)."""

RAND_INDEX_IMAGES = 20
"""Images on which clusterings are compared; each takes up to a second."""


def evaluate(
    config: TrainConfig,
    data: Path,
    device: str = "auto",
    *,
    official: bool = False,
    grouping: Grouping | None = None,
    checkpoint: str = "last",
) -> Metrics:
    """Measure the run in `config.out` and write its metrics.json.

    Args:
        config: The run's configuration.
        data: Dataset whose `val` split is measured, and whose `train` split makes the prior.
        device: `auto`, `cpu` or `cuda`.
        official: Whether to export predictions to `config.out/official` and to run the official
            scripts on them; their figures are under `official`.
        grouping: How votes become instances.
        checkpoint: `last`, or `best` of the validations during training.

    Returns:
        The network's figures, and under `position_prior` and `untrained` those of the baselines.
    """
    grouping = grouping or Grouping()
    if official:
        check_installed()
        images_to_export(data)
        if "semantic" not in config.tasks:
            raise InputError("--official: needs a run that was trained on the semantic task")
    where = pick_device(device)
    model = load_trained(config, checkpoint)
    trained = by_network(model, where)
    train = CityscapesDataset(data, "train", config.size, config.tasks, labels=config.labels)
    val = CityscapesDataset(data, "val", config.size, config.tasks)
    for split in (train, val):
        split.keep(config.cache_mb)
    weights = backbone_state(config.backbone, config.backbone_weights)
    untrained = by_network(initial_model(config, train, weights), where)

    metrics = measure(val, config.tasks, trained)
    metrics["instance_rand_index"] = None
    if "instance" in config.tasks:
        metrics["instance_rand_index"] = instance_rand_index(val, trained, grouping)
    metrics["num_images"] = len(val)
    metrics["position_prior"] = measure(val, config.tasks, by_position(train))
    metrics["untrained"] = measure(val, config.tasks, untrained)
    if official:
        out = config.out / "official"
        metrics["official"] = official_figures(model, data, config.size, out, grouping)
    write_atomically(config.out / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    return metrics


def load_trained(config: TrainConfig, checkpoint: str = "last") -> SceneNet:
    """Return the network of a run's last checkpoint, or of its best."""
    path = config.out / f"{checkpoint}.pt"
    if checkpoint == "best" and not path.is_file():
        raise InputError(
            f"{path}: not found; a run keeps its best checkpoint when --eval-every is above 0"
        )
    if not path.is_file():
        raise InputError(f"{path}: not found; {config.out} holds no trained network yet")
    model = SceneNet(config)
    try:
        load_weights(model, read_checkpoint(path).get("model"))
    except ValueError as error:
        raise InputError(f"{path}: does not fit the run's config.json ({error})") from error
    return model


def by_network(model: SceneNet, device: torch.device) -> Predictor:
    """Predict by a network."""
    model.to(device).to(memory_format=torch.channels_last).eval()

    def predict(image: Tensor) -> dict[str, Tensor]:
        maps = predict_maps(model, image.to(device))
        return {task: values.cpu() for task, values in maps.items()}

    return predict


def by_position(train: CityscapesDataset) -> Predictor:
    """Predict by position alone, and no offset at all."""
    prior = position_prior(train)

    def predict(image: Tensor) -> dict[str, Tensor]:
        batch, _, height, width = image.shape
        return {
            "semantic": prior.semantic.expand(batch, height, width),
            "instance": torch.zeros(batch, 2, height, width),
            "depth": prior.disparity.expand(batch, 1, height, width),
        }

    return predict


def measure(dataset: CityscapesDataset, tasks: tuple[str, ...], predict: Predictor) -> Metrics:
    """Return the figures of a predictor over a split; None for a task outside of `tasks`."""
    metrics = SplitMetrics(pixel_area=_pixel_area(dataset))
    labels = set(tasks)
    if all(frame.instance_ids is not None for frame in dataset.frames):
        labels.add("instance")  # for the iIoU
    for batch in batches(dataset, in_order(dataset), tuple(labels)):
        maps = predict(batch.image)
        metrics.add({task: maps[task] for task in tasks}, batch)
    return metrics.compute()


def _pixel_area(dataset: CityscapesDataset) -> float:
    """Return how many pixels of the original image go into one of the network's."""
    height, width = image_size(dataset.frames[0].image)
    return height * width / (dataset.size[0] * dataset.size[1])


def instance_rand_index(
    dataset: CityscapesDataset,
    predict: Predictor,
    grouping: Grouping | None = None,
    max_images: int = RAND_INDEX_IMAGES,
) -> float | None:
    """Return how well predicted vectors separate the pixels of the true instances.

    The mean adjusted Rand index over images; 1 is perfect, 0 is chance. The mask is the truth's,
    so that only the vectors are judged.
    """
    scores = []
    for index in range(min(len(dataset), max_images)):
        sample = dataset.read(index)
        mask = sample.instance_ids.numpy() > 0
        if mask.any():
            offsets = predict(sample.image.unsqueeze(0))["instance"][0].numpy()
            truth = sample.instance_ids.numpy()[mask]
            scores.append(adjusted_rand_score(truth, group_pixels(offsets, mask, grouping)))
    return float(np.mean(scores)) if scores else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run; metrics.json goes there")
    add("--data", type=Path, required=True, help="dataset in the official layout, or prepared")
    add("--device", choices=DEVICES, default="auto")
    add_checkpoint_flag(add)
    text = "also export predictions to RUN/official, and run cityscapesScripts on them"
    add("--official", action="store_true", help=text)
    add_grouping_flags(add)


def run(
    run: Path, data: Path, device: str, official: bool, checkpoint: str, **grouping: Any
) -> None:
    """Measure a run on the validation split."""
    chosen, config = Grouping(**grouping), load_config(run)
    # Anybody may measure a run while it is trained: only the folder that is replaced is locked.
    with locked(run / "official") if official else nullcontext():
        metrics = evaluate(
            config, data, device, official=official, grouping=chosen, checkpoint=checkpoint
        )
    print(full_summary(config, metrics))
