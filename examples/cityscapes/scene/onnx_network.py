"""Running a network that `export` has written as an ONNX file."""

import importlib.util
import json
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from torch import Tensor

from examples.cityscapes.model.network import Output
from examples.cityscapes.protocols import PROTOCOLS
from examples.cityscapes.scene.grouping import Grouping
from examples.common.errors import InputError, reason_of
from examples.common.json_types import Mismatch, PositiveInt, checker_of

INPUT, LOG_VAR = "image", "depth_log_var"
METADATA = "scene_network"
"""The name under which the metadata of a file hold its `Description`, as JSON."""
_WAY_OUT = "give a file that `export` has written"


class Description(TypedDict):
    """What `predict` has to know of an exported network."""

    format: Literal[1]
    protocol: str
    tasks: list[str]
    size: tuple[PositiveInt, PositiveInt]
    """Height and width of the images in training."""
    classes: list[str]
    """Names by the channel of the output `semantic`."""
    grouping: Grouping
    """How votes become instances, unless the command line says otherwise."""
    version: str
    """The version of uncertainty_mtl that exported the network."""


class OnnxNetwork:
    """An exported network, which is called as the one that it was exported from.

    Args:
        content: The bytes of an ONNX file.
        device: Where to compute: `cpu`, or `cuda` with an onnxruntime that has a GPU.
    """

    def __init__(self, content: bytes, device: str = "cpu") -> None:
        check_installed("onnxruntime")
        import onnxruntime  # here, as most commands do not need it

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3  # errors only
        provider = "CUDAExecutionProvider" if device == "cuda" else "CPUExecutionProvider"
        self._session = onnxruntime.InferenceSession(content, options, providers=[provider])
        self._names = [output.name for output in self._session.get_outputs()]

    def __call__(self, image: Tensor) -> dict[str, Output]:
        """Return the outputs for images of uint8, (B, 3, H, W), as `SceneNet` does."""
        maps = self.run((image.float() / 255).cpu())
        if LOG_VAR not in maps:
            return {**maps}
        log_var = maps.pop(LOG_VAR)
        return {**maps, "depth": (maps["depth"], log_var)}

    def run(self, image: Tensor) -> dict[str, Tensor]:
        """Return the outputs by the names in the file, for images of float32 from 0 to 1."""
        found = self._session.run(self._names, {INPUT: image.numpy()})
        return {name: torch.from_numpy(y) for name, y in zip(self._names, found, strict=True)}

    @property
    def metadata(self) -> dict[str, str]:
        """What the file says about itself."""
        return dict(self._session.get_modelmeta().custom_metadata_map)


def read_onnx(path: Path, device: str) -> tuple[OnnxNetwork, dict[str, Any]]:
    """Open an exported network; returns it with its `Description`.

    Args:
        path: The file.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        InputError: If `export` has not written the file, or onnxruntime cannot run it.
    """
    if not path.is_file():
        raise InputError(f"--model: {path} not found; {_WAY_OUT}")
    try:
        network = OnnxNetwork(path.read_bytes(), _checked_device(device))
    except InputError:
        raise
    except Exception as error:  # onnxruntime has a class of its own for every fault
        raise InputError(
            f"--model: {path} is not a readable ONNX file ({reason_of(error)}); {_WAY_OUT}"
        ) from error
    try:
        description = json.loads(network.metadata.get(METADATA, "null"))
        checker_of(Description)(description)
        protocol = PROTOCOLS.get(description["protocol"])
        if protocol is None or tuple(description["classes"]) != protocol.class_names:
            raise Mismatch("should be the classes of a protocol of this version", ".classes")
    except (ValueError, Mismatch) as error:
        raise InputError(
            f"--model: {path} does not describe a network for street scenes ({error}); {_WAY_OUT}"
        ) from error
    return network, description


def check_installed(*packages: str) -> None:
    """Raise unless packages that only ONNX files need are installed."""
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise InputError(
            f"ONNX files need {' and '.join(missing)}; `pip install {' '.join(missing)}` "
            f"brings {'them' if missing[1:] else 'it'}"
        )


def _checked_device(choice: str) -> str:
    check_installed("onnxruntime")
    import onnxruntime

    has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if choice == "cuda" and not has_gpu:
        raise InputError(
            "--device: cuda was asked for, but this onnxruntime finds no GPU; `pip install "
            "onnxruntime-gpu` brings one that can"
        )
    return "cuda" if has_gpu and choice != "cpu" else "cpu"
