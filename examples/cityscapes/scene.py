"""What a network says about one image at the image's own size: classes, instances, confidence."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.cityscapes.instances import Grouping, find_instances
from examples.cityscapes.panoptic import instance_classes
from examples.cityscapes.samples import resize_rgb


class Scene(NamedTuple):
    """A prediction for one image."""

    classes: np.ndarray
    """Train ids, uint8, (H, W)."""
    instances: np.ndarray | None
    """Numbers from 1 up, (H, W), 0 outside of things; None where the task is not trained."""
    confidence: np.ndarray | None
    """By instance, its mean probability of the class that it is given, shape (K,)."""


@torch.no_grad()
def predict_scene(
    model: nn.Module,
    pixels: np.ndarray,
    size: tuple[int, int],
    device: torch.device,
    grouping: Grouping,
) -> Scene:
    """Predict an image of any size by a network that works at another.

    The outputs are enlarged, not the classes: the border between two classes then comes out smooth.

    Args:
        model: In evaluation mode, on `device`.
        pixels: RGB, (H, W, 3).
        size: Height and width of the network's input.
        device: Where the network is.
        grouping: How votes become instances.
    """
    height, width = pixels.shape[:2]
    maps = {
        task: F.interpolate(output.float().cpu(), (height, width), mode="bilinear")[0]
        for task, output in model(resize_rgb(pixels, size).unsqueeze(0).to(device)).items()
        if task != "depth"
    }
    probabilities = maps["semantic"].softmax(dim=0)
    classes = probabilities.argmax(dim=0).numpy().astype(np.uint8)
    if "instance" not in maps:
        return Scene(classes, None, None)
    # Vectors are in pixels of the network's input.
    offsets = maps["instance"].numpy() * np.array([width / size[1], height / size[0]])[
        :, None, None
    ].astype(np.float32)
    instances = find_instances(offsets, classes, grouping)
    return Scene(classes, instances, mean_probability(probabilities, classes, instances))


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
