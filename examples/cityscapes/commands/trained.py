"""The trained network that a command predicts with: that of a run, or an exported one."""

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import torch

from examples.cityscapes.config import load_config
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.protocols import PROTOCOLS, Protocol
from examples.cityscapes.scene.onnx_network import OnnxNetwork, read_onnx
from examples.common.device import pick_device
from examples.common.errors import InputError


class Trained(NamedTuple):
    """A network that is ready to predict, and what its user has to know about it."""

    network: SceneNet | OnnxNetwork
    protocol: Protocol
    tasks: tuple[str, ...]
    size: tuple[int, int]
    """Height and width of the images in training."""
    device: torch.device
    """The device that its inputs have to be on."""
    grouping: dict[str, Any]
    """How votes become instances, where an exported network says so."""
    origin: dict[str, Any]
    """Identifies the network: networks that predict differently have different origins."""


def network_of_run(run: Path, checkpoint: str, device: str) -> Trained:
    """Load the network of a run.

    Args:
        run: Folder of the run.
        checkpoint: `last` or `best`.
        device: `auto`, `cpu` or `cuda`.
    """
    config, where = load_config(run), pick_device(device)
    model = load_trained(config, checkpoint)
    model.to(where).to(memory_format=torch.channels_last).eval()
    settings = {k: v for k, v in vars(config).items() if k not in ("data", "out", "init_from")}
    saved = zlib.crc32((run / f"{checkpoint}.pt").read_bytes())
    origin = {"checkpoint": saved, "config": settings}
    protocol = PROTOCOLS[config.protocol]
    return Trained(model, protocol, config.tasks, config.size, where, {}, origin)


def exported_network(file: Path, checkpoint: str, device: str) -> Trained:
    """Open the network in an ONNX file; the arguments are those of `network_of_run`."""
    if checkpoint != "last":
        raise InputError("--checkpoint: an exported network has only one; leave out the flag")
    network, description = read_onnx(file, device)
    origin = {"onnx": zlib.crc32(file.read_bytes())}
    protocol, tasks = PROTOCOLS[description["protocol"]], tuple(description["tasks"])
    height, width = description["size"]
    where = torch.device("cpu")  # even if it computes on a GPU: it copies its inputs itself
    grouping = description["grouping"]
    return Trained(network, protocol, tasks, (height, width), where, grouping, origin)


def check_can_sample(network: SceneNet | OnnxNetwork) -> SceneNet:
    """Return the network, or raise if dropout cannot be sampled from it."""
    if isinstance(network, OnnxNetwork):
        raise InputError(
            "--uncertainty: an exported network has no dropout to sample; use --run instead of "
            "--model"
        )
    if not network.has_dropout:
        raise InputError(
            "--uncertainty: the run was trained without dropout, so there is nothing to sample; "
            "train with --dropout, such as 0.2"
        )
    return network
