"""The network as it is before the first iteration."""

import dataclasses
import http.client
import math
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import get_model_weights

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.model.init_from import take_weights
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.settings import initial_sigma
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError


def backbone_state(backbone: str, choice: str) -> tuple[str, dict[str, Tensor] | None]:
    """Return the weights that `--backbone-weights` selects: their name and a ResNet state dict.

    `auto` selects `imagenet`. If those weights cannot be fetched, it prints a warning and selects
    `none`, whose state dict is None; for `imagenet` itself, that is an error.

    Raises:
        InputError: If `imagenet` cannot be fetched, or a file cannot be read.
    """
    if choice == "none":
        return choice, None
    if choice not in ("auto", "imagenet"):
        return choice, read_checkpoint(Path(choice))
    try:
        with _patience(seconds=20):
            weights = get_model_weights(backbone).DEFAULT.get_state_dict(progress=False)
    # No network connection, one that broke off, or a damaged download.
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        found = f"no ImageNet weights for {backbone} ({reason})"
        if choice == "imagenet":
            raise InputError(
                f"--backbone-weights imagenet: {found}; connect to the network, or give a file "
                "or `none`"
            ) from error
        print(f"warning: {found}; starting from random ones", file=sys.stderr)
        return "none", None
    return "imagenet", weights


def start_model(
    config: TrainConfig, dataset: CityscapesDataset | None
) -> tuple[SceneNet, TrainConfig]:
    """Return the network of a new run, and the configuration with the weights that were found.

    Args:
        config: The run's configuration.
        dataset: The training images; only a network with `start_at_mean` needs them.
    """
    if config.init_from is not None and not config.init_partly:  # replaces all weights
        model = initial_model(config, None, None)
    else:
        found, weights = backbone_state(config.backbone, config.backbone_weights)
        config = dataclasses.replace(config, backbone_weights=found)
        model = initial_model(config, dataset, weights)
    if config.init_from is not None:
        take_weights(model, config.init_from, partly=config.init_partly)
    return model, config


def initial_model(
    config: TrainConfig, dataset: CityscapesDataset | None, weights: dict[str, Tensor] | None
) -> SceneNet:
    """Build the network with the initial weights of `config.seed`, and given ones for the trunk.

    Args:
        config: The run's configuration.
        dataset: The training images; only a network with `start_at_mean` needs them.
        weights: ResNet state dict; None leaves the trunk as the seed decides.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = SceneNet(config)
    if weights is not None:
        try:
            model.trunk.load_resnet(weights)
        except ValueError as error:
            raise InputError(
                f"--backbone-weights: {config.backbone_weights} does not fit {config.backbone} "
                f"({error})"
            ) from error
    if config.depth_noise == "per-pixel":
        _start_noise_at(model, initial_sigma(config.sigma_init) or 1.0)
    if config.start_at_mean and "depth" in config.tasks and dataset is not None:
        _start_depth_at_mean(model, dataset)
    return model


@torch.no_grad()
def _start_depth_at_mean(model: SceneNet, dataset: CityscapesDataset) -> None:
    # Disparities are far from 0: without this, the first thousand steps only approach their mean.
    total, count = 0.0, 0
    for index in range(len(dataset)):
        disparity = dataset.read(index).disparity
        valid = disparity[~disparity.isnan()]
        total, count = total + float(valid.double().sum()), count + len(valid)
    if count:
        model.get_parameter("decoders.depth.1.bias")[0] = total / count


@torch.no_grad()
def _start_noise_at(model: SceneNet, sigma: float) -> None:
    model.get_parameter("decoders.depth.1.bias")[1] = 2 * math.log(sigma)


@contextmanager
def _patience(seconds: float) -> Iterator[None]:
    # urllib waits without end by default.
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
