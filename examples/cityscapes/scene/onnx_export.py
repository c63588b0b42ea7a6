"""Writing a trained network as an ONNX file, which runs without PyTorch and without this code."""

import json
from typing import Any

import torch
from torch import Tensor, nn

from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.scene.onnx_network import (
    INPUT,
    LOG_VAR,
    METADATA,
    OnnxNetwork,
    check_installed,
)
from examples.common.errors import InputError

TOLERANCE = 1e-4
"""Largest difference from PyTorch's output: absolute, plus this share of the value."""

_OLDEST_TORCH = (2, 7)
"""Older versions cannot name the axes whose lengths are free."""

_TEXT = {
    INPUT: "images as RGB from 0 to 1, that is uint8 / 255; the normalisation is part of the graph",
    "semantic": "logits of the classes that the metadata name",
    "instance": "vector (x, y) to the centre of the instance, in pixels of the input",
    "depth": "inverse depth as a disparity in pixels of the input; negative values mean 0",
    LOG_VAR: "logarithm of the variance that the network predicts for the disparity",
}


class _FromUnitRange(nn.Module):
    """A network whose input is in 0..1, and whose outputs are a row of tensors."""

    def __init__(self, model: SceneNet) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(by_name(self.model(image * 255)).values())


def by_name(outputs: dict[str, Any]) -> dict[str, Tensor]:
    """Return the outputs of a `SceneNet` by their names in an ONNX file."""
    named = {}
    for task, output in outputs.items():
        if isinstance(output, tuple):  # the noise of every pixel, which only depth may have
            named[task], named[LOG_VAR] = output
        else:
            named[task] = output
    return named


def to_onnx(model: SceneNet, description: dict[str, Any]) -> tuple[bytes, float]:
    """Return the ONNX file of a network, after comparing it with the network itself.

    Args:
        model: In float32, on the CPU.
        description: What the file says about itself; see `Description`.

    Returns:
        The bytes of the file, and the largest difference of any output.

    Raises:
        InputError: If a package is missing, or if the outputs differ from those of PyTorch.
    """
    check_can_export()
    model = model.eval()
    names = [*description["tasks"], *([LOG_VAR] if model.predicts_noise else [])]
    example = torch.zeros(2, 3, *description["size"])  # an axis of length 1 would become fixed
    free = {0: "batch", 2: "height", 3: "width"}
    program = torch.onnx.export(
        _FromUnitRange(model).eval(),
        (example,),
        input_names=[INPUT],
        output_names=names,
        dynamic_shapes={INPUT: free},
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # noqa: S101 - only the exporter before it returns None
    proto = program.model_proto
    proto.doc_string = "\n".join(f"{name}: {_TEXT[name]}" for name in (INPUT, *names))
    for value in (*proto.graph.input, *proto.graph.output):
        value.doc_string = _TEXT[value.name]
    entry = proto.metadata_props.add()
    entry.key, entry.value = METADATA, json.dumps(description)
    content = proto.SerializeToString()
    return content, largest_difference(model, OnnxNetwork(content), description["size"])


@torch.no_grad()
def largest_difference(model: SceneNet, network: OnnxNetwork, size: tuple[int, int]) -> float:
    """Return how far the outputs for random images are from PyTorch's.

    Raises:
        InputError: If an output differs by more than `TOLERANCE`.
    """
    random, largest = torch.Generator().manual_seed(0), 0.0
    for shape in ((1, 3, *size), (3, 3, 40, 72)):
        image = torch.randint(0, 256, shape, generator=random).to(torch.uint8)
        found = by_name(network(image))
        for name, expected in by_name(model(image)).items():
            difference = (found[name] - expected).abs()
            if bool((difference > TOLERANCE * (1 + expected.abs())).any()):
                raise InputError(
                    f"the exported output {name} differs from PyTorch's by "
                    f"{difference.max():.2g}, so no file was written; try another version of "
                    "onnxruntime and onnxscript"
                )
            largest = max(largest, float(difference.max()))
    return largest


def check_can_export() -> None:
    """Raise unless torch is new enough, and what it needs for ONNX is there."""
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if release < _OLDEST_TORCH:
        needed = ".".join(map(str, _OLDEST_TORCH))
        raise InputError(f"ONNX files need torch {needed} or newer; found {torch.__version__}")
    check_installed("onnx", "onnxruntime", "onnxscript")
