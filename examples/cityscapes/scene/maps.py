"""A network's predictions at the size of the images, whatever size it works at itself."""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from examples.cityscapes.data.sample import resize_rgb
from examples.cityscapes.protocols import THREE_TASK, Protocol
from examples.cityscapes.scene.grouping import Grouping, find_instances
from examples.cityscapes.scene.panoptic import instance_classes, panoptic_ids

Arrays = dict[str, np.ndarray]
Maps = dict[str, Tensor]
Network = Callable[[Tensor], dict[str, Any]]
"""From images (B, 3, H, W), uint8, to outputs by task: a `SceneNet`, or one that was exported."""


class PredictedScene(NamedTuple):
    """A prediction for one image."""

    classes: np.ndarray
    """Train ids, uint8, (H, W)."""
    instances: np.ndarray | None
    """Numbers from 1 up, (H, W), 0 outside of things; None where the task is not trained."""
    confidence: np.ndarray | None
    """Mean probability of the class that each instance is given, shape (K,)."""


def predict_scene(
    model: Network,
    pixels: np.ndarray,
    size: tuple[int, int],
    device: torch.device,
    grouping: Grouping,
) -> PredictedScene:
    """Predict classes, instances and confidences for an image of any size, for all three tasks.

    Args:
        model: In evaluation mode, on `device`.
        pixels: RGB, (H, W, 3).
        size: Height and width of the network's input.
        device: Where the network is.
        grouping: How votes become instances.
    """
    (maps,) = predict_maps(model, [pixels], size, device, THREE_TASK)
    probabilities = maps["semantic"]
    classes = probabilities.argmax(dim=0).numpy().astype(np.uint8)
    if "instance" not in maps:
        return PredictedScene(classes, None, None)
    instances = find_instances(maps["instance"].numpy(), classes, grouping)
    return PredictedScene(classes, instances, mean_probability(probabilities, classes, instances))


@torch.no_grad()
def predict_maps(
    model: Network,
    images: list[np.ndarray],
    size: tuple[int, int],
    device: torch.device,
    protocol: Protocol,
) -> Iterator[Maps]:
    """Predict images of any sizes in one batch, by a network that works at one size.

    The outputs are enlarged, not the classes: the border between two classes then comes out smooth.

    Args:
        model: In evaluation mode, on `device`.
        images: RGB, each (H, W, 3).
        size: Height and width of the network's input.
        device: Where the network is.
        protocol: Decides the unit of inverse depths.

    Yields:
        By task, on the CPU, at the image's size: probabilities (K, H, W), offsets (2, H, W) in
        pixels of the image, and inverse depth (1, H, W); `depth_sigma` (1, H, W) as well, if the
        network predicts its noise.
    """
    inputs = torch.stack([resize_rgb(pixels, size) for pixels in images]).to(device)
    outputs = model(inputs)
    if isinstance(outputs.get("depth"), tuple):
        outputs["depth"], log_var = outputs["depth"]
        outputs["depth_sigma"] = torch.exp(0.5 * log_var)
    outputs = {task: output.float().cpu() for task, output in outputs.items()}
    for index, pixels in enumerate(images):
        maps = {t: enlarge(y[index], pixels.shape[:2]) for t, y in outputs.items()}
        if "semantic" in maps:
            maps["semantic"] = maps["semantic"].softmax(dim=0)
        # One image at a time: 19 probabilities for every pixel of all of them fill the memory.
        yield in_pixels_of_the_image(maps, size, protocol)


def enlarge(output: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize (C, h, w) to (C, H, W)."""
    return F.interpolate(output.unsqueeze(0), size, mode="bilinear")[0]


def in_pixels_of_the_image(maps: Maps, size: tuple[int, int], protocol: Protocol) -> Maps:
    """Convert what is in pixels of an input of `size` to pixels of the maps."""
    converted = {}
    for name, values in maps.items():
        height, width = values.shape[-2:]
        factors = torch.tensor([width / size[1], height / size[0]]).view(2, 1, 1)
        if name.startswith("instance"):
            values = values * factors
        elif name.startswith("depth") and protocol.depth_is_in_pixels:
            values = values * factors[0]
        converted[name] = values
    return converted


def input_size(shape: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the size at which a network trained at `size` should see an image of `shape`.

    For an image of the same aspect ratio, that is `size`. Any other image is seen at about as many
    pixels, and in its own aspect ratio as far as multiples of 8 allow.
    """
    height, width = shape
    if height * size[1] == width * size[0]:
        return size
    scale = math.sqrt(size[0] * size[1] / (height * width))
    rows, columns = (max(8, 8 * round(side * scale / 8)) for side in shape)
    return rows, columns


def to_arrays(maps: dict[str, Tensor], grouping: Grouping | None = None) -> Arrays:
    """Return the predictions for one image, and the instances that follow from them.

    `classes` are train ids, `offsets` (2, H, W) and `inverse_depth` have the unit of the maps,
    `instances` are numbers from 1 up, and `panoptic` has classes and instances in one, numbered as
    in `instanceIds` files. Both need the classes and the offsets.

    Args:
        maps: Train ids (1, H, W), offsets (1, 2, H, W) and disparity (1, 1, H, W), by task.
        grouping: How votes become instances.
    """
    arrays: Arrays = {}
    if "semantic" in maps:
        arrays["classes"] = maps["semantic"][0].numpy().astype(np.uint8)
    if "instance" in maps:
        arrays["offsets"] = maps["instance"][0].numpy()
    if "depth" in maps:
        # A disparity below 0 has no meaning; the network is not kept from predicting one.
        arrays["inverse_depth"] = maps["depth"][0, 0].clamp(min=0).numpy()
    if "semantic" in maps and "instance" in maps:
        arrays["instances"] = find_instances(arrays["offsets"], arrays["classes"], grouping)
        arrays["panoptic"] = panoptic_ids(arrays["classes"], arrays["instances"])
    return arrays


def mean_probability(
    probabilities: Tensor, classes: np.ndarray, instances: np.ndarray
) -> np.ndarray:
    """Return the mean probability over each instance of the class that it is given."""
    of_instance = instance_classes(classes, instances)
    inside = instances > 0
    number = instances[inside] - 1
    rows, columns = np.nonzero(inside)
    belief = probabilities.numpy()[of_instance[number], rows, columns]
    count = np.bincount(number, minlength=len(of_instance))
    return np.bincount(number, weights=belief, minlength=len(of_instance)) / np.maximum(count, 1)
