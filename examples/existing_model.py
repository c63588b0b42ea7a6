"""An existing model that returns its own losses: torchvision's Faster R-CNN, weighted by noise.

In training mode the detector returns a dict of four losses, already reduced, and the usual loop
adds them up. This script trains the same detector twice on rendered rectangles, by that plain sum
and by learned weights, and compares how well both find the rectangles of new images. Run it with
``python examples/existing_model.py``: it needs no data and no pretrained weights, and takes about
a minute on one CPU core.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign, box_iou

from uncertainty_mtl import UncertaintyWeightedLoss

LIKELIHOODS = {
    "loss_classifier": "softmax",
    "loss_box_reg": "laplace",  # smooth L1, which is L1 for all but small errors
    "loss_objectness": "sigmoid",
    "loss_rpn_box_reg": "laplace",
}
"""Which likelihood each of the detector's losses belongs to."""

VALIDATION_SEED = 1_000
"""Seed of the images that no training uses."""


class Backbone(nn.Sequential):
    """Four convolutions, few enough for a CPU; the detector reads ``out_channels``."""

    out_channels = 64

    def __init__(self) -> None:
        layers: list[nn.Module] = []
        for inputs, outputs, stride in ((3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 64, 1)):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
            layers += [convolution, nn.GroupNorm(4, outputs), nn.ReLU()]
        super().__init__(*layers)


def make_model() -> FasterRCNN:
    """Return an untrained detector of one class."""
    return FasterRCNN(
        Backbone(),
        rpn_anchor_generator=AnchorGenerator(((32,),), ((0.67, 1.0, 1.5),)),
        rpn_pre_nms_top_n_train=100,
        rpn_post_nms_top_n_train=32,
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=32,
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=5, sampling_ratio=2),
        box_head=TwoMLPHead(64 * 5 * 5, 64),
        box_predictor=FastRCNNPredictor(64, num_classes=2),
        box_batch_size_per_image=32,
        box_score_thresh=0.0,
        min_size=96,
        max_size=96,
        image_mean=[0.0] * 3,
        image_std=[1.0] * 3,
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


def train(steps: int, *, learned: bool, seed: int = 0) -> tuple[nn.Module, UncertaintyWeightedLoss]:
    """Train a detector by learned weights, or by the plain sum; return it and its loss."""
    torch.manual_seed(seed)
    model = make_model()
    # Fixed weights of 1 are the plain sum. The detector returns a loss of 0 for the boxes of images
    # without objects, which is not a perfect prediction: `zero_is_missing` leaves it out.
    loss_fn = UncertaintyWeightedLoss(
        LIKELIHOODS, estimator="learned" if learned else "fixed", zero_is_missing=True
    )
    groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    loss_fn.check_optimizer(optimizer)

    for step, (images, targets) in enumerate(rectangles(steps, seed)):
        losses = loss_fn(model(images, targets))
        optimizer.zero_grad()
        losses.total.backward()  # instead of `sum(loss_dict.values())`
        optimizer.step()
        if step % 25 == 0:
            weights = {k: f"{w.item():.1f}" for k, w in loss_fn.weights().items()}
            print(step, {k: f"{v.item():.4f}" for k, v in losses.errors.items()}, weights)
    return model, loss_fn


def overlap(model: nn.Module, num_batches: int = 10) -> float:
    """Return the mean overlap (IoU) of the most certain box of new images with the true one."""
    model.eval()
    found = []
    with torch.no_grad():
        for images, targets in rectangles(num_batches, VALIDATION_SEED):
            for prediction, target in zip(model(images), targets, strict=True):
                best = prediction["boxes"][:1]
                found.append(box_iou(best, target["boxes"]).item() if len(best) else 0.0)
    return sum(found) / len(found)


def compare(steps: int, seed: int = 0) -> dict[str, float]:
    """Train by the plain sum and by learned weights, and return the overlap of each."""
    overlaps = {}
    for name, learned in {"plain sum": False, "learned weights": True}.items():
        print(name)
        model, _ = train(steps, learned=learned, seed=seed)
        overlaps[name] = overlap(model)
    return overlaps


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name, value in compare(args.steps, args.seed).items():
        print(f"{name}: mean IoU {value:.3f}")
