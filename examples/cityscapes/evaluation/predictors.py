"""What is measured: a trained network, and the baselines that it should beat."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.data.files import FINE
from examples.cityscapes.evaluation.baselines import position_prior
from examples.cityscapes.evaluation.metrics import predict_maps
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.model.start import start_model
from examples.cityscapes.protocols import PROTOCOLS
from examples.common.errors import InputError

Predictor = Callable[[Tensor], dict[str, Tensor]]
"""From images (B, 3, H, W) to maps by task: classes (B, H, W), offsets (B, 2, H, W) and
disparity (B, 1, H, W)."""

BASELINES = ("position_prior", "untrained")


def by_network(model: SceneNet, device: torch.device) -> Predictor:
    """Predict by a network."""
    model.to(device).to(memory_format=torch.channels_last).eval()

    def predict(image: Tensor) -> dict[str, Tensor]:
        maps = predict_maps(model, image.to(device))
        return {task: values.cpu() for task, values in maps.items()}

    return predict


def by_position(train: CityscapesDataset) -> Predictor:
    """Predict classes and disparities from a pixel's position only, and offsets of 0."""
    prior = position_prior(train)

    def predict(image: Tensor) -> dict[str, Tensor]:
        batch, _, height, width = image.shape
        return {
            "semantic": prior.semantic.expand(batch, height, width),
            "instance": torch.zeros(batch, 2, height, width),
            "depth": prior.disparity.expand(batch, 1, height, width),
        }

    return predict


def baselines(config: TrainConfig, data: Path, device: torch.device) -> dict[str, Predictor | None]:
    """Return both baselines by name; None, after a warning, for one that cannot be made.

    The data may have no training split, and the file that the trunk started from may be gone.
    The figures of the network itself do not depend on either.
    """

    @functools.cache
    def train() -> CityscapesDataset:
        return open_kept(config, data, "train", config.labels)

    def untrained() -> Predictor:
        dataset = train() if config.start_at_mean else None
        return by_network(start_model(config, dataset)[0], device)

    makers = (lambda: by_position(train()), untrained)
    named = zip(BASELINES, makers, strict=True)
    return {name: _unless_refused(name, make) for name, make in named}


def _unless_refused(name: str, make: Callable[[], Predictor]) -> Predictor | None:
    try:
        return make()
    except InputError as error:
        print(f"warning: {name} is left blank: {error}", file=sys.stderr)
        return None


def open_kept(
    config: TrainConfig, data: Path, split: str, labels: str = FINE, limit: int | None = None
) -> CityscapesDataset:
    """Open a split or its first images, kept in memory if they are few enough for that."""
    protocol = PROTOCOLS[config.protocol]
    dataset = CityscapesDataset(
        data, split, config.size, config.tasks, labels=labels, protocol=protocol
    )
    dataset.frames = dataset.frames[:limit]
    dataset.keep(config.cache_mb)
    return dataset
