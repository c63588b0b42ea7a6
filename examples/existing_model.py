"""An existing model that returns its own losses: torchvision's Faster R-CNN, weighted by noise.

In training mode the detector returns a dict of four losses, already reduced, and every recipe adds
them up with equal weight. That dict goes in as it is: the names of the tasks are its keys. Run with
``python examples/existing_model.py``; it needs no data, no weights and half a minute.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor
from torchvision.models.detection import FasterRCNN, fasterrcnn_mobilenet_v3_large_320_fpn

from uncertainty_mtl import UncertaintyWeightedLoss

LIKELIHOODS = {
    "loss_classifier": "softmax",
    "loss_box_reg": "laplace",  # smooth L1, which is L1 for all but small errors
    "loss_objectness": "sigmoid",
    "loss_rpn_box_reg": "laplace",
}
"""Which likelihood each of the detector's losses belongs to."""


def make_model() -> FasterRCNN:
    """Return an untrained detector of one class for small images."""
    return fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=2, min_size=96, max_size=96
    )


def rectangles(num_batches: int, seed: int = 0) -> Iterator[tuple[list[Tensor], list[dict]]]:
    """Yield batches of four noisy images with one bright rectangle each, and its box."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(num_batches):
        images, targets = [], []
        for _ in range(4):
            left, top = torch.randint(0, 48, (2,), generator=generator).tolist()
            width, height = torch.randint(24, 48, (2,), generator=generator).tolist()
            image = 0.1 * torch.rand(3, 96, 96, generator=generator)
            image[:, top : top + height, left : left + width] += 0.8
            box = torch.tensor([[left, top, left + width, top + height]], dtype=torch.float32)
            images.append(image)
            targets.append({"boxes": box, "labels": torch.ones(1, dtype=torch.long)})
        yield images, targets


def train(steps: int, seed: int = 0) -> UncertaintyWeightedLoss:
    """Train the detector and the weights of its losses, and return the loss."""
    torch.manual_seed(seed)
    model = make_model()
    # The detector returns a loss of 0 for the boxes of images without objects.
    loss_fn = UncertaintyWeightedLoss(LIKELIHOODS, zero_is_missing=True)
    groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
    optimizer = torch.optim.AdamW(groups, lr=3e-4)
    loss_fn.check_optimizer(optimizer)

    for step, (images, targets) in enumerate(rectangles(steps, seed)):
        losses = loss_fn(model(images, targets))
        optimizer.zero_grad()
        losses.total.backward()  # instead of `sum(loss_dict.values())`
        optimizer.step()
        if step % 10 == 0:
            weights = {k: f"{w.item():.2f}" for k, w in loss_fn.weights().items()}
            print(step, {k: f"{v.item():.4f}" for k, v in losses.errors.items()}, weights)
    return loss_fn


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    train(parser.parse_args().steps)
