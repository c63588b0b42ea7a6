"""What a network does not know (epistemic) and what nobody could (aleatoric), pixel by pixel."""

import numpy as np
import torch
from torch import Tensor, nn

from examples.cityscapes.data.sample import resize_rgb
from examples.cityscapes.model.network import Output, SceneNet
from examples.cityscapes.protocols import Protocol
from examples.cityscapes.scene.maps import Arrays, Maps, enlarge, in_pixels_of_the_image
from uncertainty_mtl import (
    ClassificationUncertainty,
    HeteroscedasticLaplaceHead,
    ScaledSoftmaxHead,
    TaskHead,
    mc_dropout,
)


class _FromSharedFeatures(nn.Module):
    """The part of a network that has dropout; the rest need not be sampled."""

    def __init__(self, model: SceneNet, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, shared: Tensor) -> dict[str, Output]:
        return self.model.decode(shared, self.size)


@torch.no_grad()
def predict_with_uncertainty(
    model: SceneNet,
    pixels: np.ndarray,
    size: tuple[int, int],
    device: torch.device,
    protocol: Protocol,
    *,
    samples: int,
    at_once: int,
) -> tuple[Maps, Arrays]:
    """Predict an image by the mean over dropout masks, and say how far to trust it.

    Args:
        model: Trained with dropout; in evaluation mode, on `device`.
        pixels: RGB, (H, W, 3).
        size: Height and width of the network's input.
        device: Where the network is.
        protocol: Decides the unit of inverse depths.
        samples: How many masks are drawn; all outputs are kept until the last one.
        at_once: How many of them go through the decoders together.

    Returns:
        The maps as `predict_maps` gives them, and arrays (H, W) of the tasks that are trained.
        `class_epistemic` is the mutual information and `class_aleatoric` the expected entropy, in
        nats: their sum is the entropy of the mean. The others are standard deviations in the unit
        of the maps: `inverse_depth_epistemic` and `offset_epistemic` (both components) of the
        prediction between masks, `inverse_depth_aleatoric` of the noise that the network predicts,
        if it does.
    """
    inputs = resize_rgb(pixels, size).unsqueeze(0).to(device)
    # At sigma 1: a sigma that weighs a loss is not a temperature of the probabilities.
    heads: dict[str, TaskHead] = {"semantic": ScaledSoftmaxHead()}
    if model.predicts_noise:
        heads["depth"] = HeteroscedasticLaplaceHead()
    heads = {task: head.to(device).eval() for task, head in heads.items()}
    sampled = _FromSharedFeatures(model, size)
    found = mc_dropout(sampled, model.features(inputs), samples, heads, samples_at_once=at_once)

    maps: Maps = {}
    doubts: Maps = {}
    for task, summary in found.items():
        if isinstance(summary, ClassificationUncertainty):
            maps[task] = summary.probability
            # Rounding can make a mutual information of 0 slightly negative.
            doubts["class_epistemic"] = summary.mutual_information.clamp(min=0).unsqueeze(1)
            doubts["class_aleatoric"] = (
                (summary.entropy - summary.mutual_information).clamp(min=0).unsqueeze(1)
            )
        else:
            maps[task] = summary.mean
            doubts[f"{task}_epistemic"] = summary.epistemic.sqrt()
            if task in heads:
                doubts[f"{task}_aleatoric"] = summary.aleatoric.sqrt()
    height_width = pixels.shape[:2]
    maps, doubts = (
        in_pixels_of_the_image(
            {
                name: enlarge(values[0].float().cpu(), height_width)
                for name, values in group.items()
            },
            size,
            protocol,
        )
        for group in (maps, doubts)
    )
    return maps, _named(doubts)


def _named(doubts: Maps) -> Arrays:
    arrays = {}
    for name, values in doubts.items():
        task, _, kind = name.rpartition("_")
        title = {"depth": "inverse_depth", "instance": "offset"}.get(task, task)
        # Two components: the length of the vector of both deviations.
        arrays[f"{title}_{kind}"] = values.square().sum(0).sqrt().numpy()
    return arrays
