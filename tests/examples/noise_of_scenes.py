"""Trains on scenes with noise of a known amount, and says which sigmas that should lead to.

Those are `sqrt(2) * mean |noise + residual|` for a Laplace head, and the root of the mean square
for a Gaussian one, over the training set; targets are read from the files by other code than the
trainer's.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import TrainingOrder, in_order
from examples.cityscapes.labels import IGNORE_INDEX, LABEL_ID, TRAIN_CLASSES
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.training.loaders import training_data
from examples.cityscapes.training.state import build_optimizers, scheduled_rate
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

HEADS = {"laplace": LaplaceHead, "gaussian": GaussianHead}
REGRESSION = ("instance", "depth")
_THINGS = [c.id for c in TRAIN_CLASSES if c.has_instances]


class Errors(NamedTuple):
    """What the files and the predictions say of one task, over all labelled elements."""

    total: np.ndarray
    """Noisy target less prediction."""
    noise: np.ndarray
    """Noisy less clean target, where there is a clean one."""
    residual: np.ndarray
    """Clean target less prediction, at the same places."""


class NoiseRow(NamedTuple):
    """What was learned and what should have been, in pixels."""

    head: str
    task: str
    noise: float
    residual: float
    expected: float
    learned: float


def laplace_sigma(error: np.ndarray) -> float:
    """The sigma at which a Laplace likelihood is highest."""
    return float(np.sqrt(2) * np.abs(error).mean())


def gaussian_sigma(error: np.ndarray) -> float:
    """The sigma at which a Gaussian likelihood is highest."""
    return float(np.sqrt(np.square(error).mean()))


SIGMA: dict[str, Callable[[np.ndarray], float]] = {
    "laplace": laplace_sigma,
    "gaussian": gaussian_sigma,
}


def measure(config: TrainConfig, head: str) -> list[NoiseRow]:
    """Train with heads of one kind on `config.data`, and compare their sigmas."""
    model, loss_fn = learn(config, head)
    learned = loss_fn.sigmas()
    return [
        NoiseRow(
            head,
            task,
            *(SIGMA[head](e) for e in (errors.noise, errors.residual, errors.total)),
            learned=float(learned[task]),
        )
        for task, errors in errors_on_training_set(config, model).items()
    ]  # fmt: skip


def learn(config: TrainConfig, head: str) -> tuple[SceneNet, UncertaintyWeightedLoss]:
    """Train all three tasks, with `head` for both regressions; no augmentation but mirroring."""
    dataset = training_data(config)
    model = initial_model(config, dataset, None)
    loss_fn = UncertaintyWeightedLoss(
        {
            "semantic": ScaledSoftmaxHead(ignore_index=IGNORE_INDEX),
            **{task: HEADS[head]() for task in REGRESSION},
        }
    )
    optimizers = build_optimizers(model, loss_fn, config)
    model.train()
    steps = {"start": 0, "stop": config.iterations, "seed": config.seed, "augment": config.flip}
    order = TrainingOrder(len(dataset), config.batch_size, **steps)
    for iteration, batch in enumerate(batches(dataset, order, config.tasks)):
        for group in optimizers[0].param_groups:
            group["lr"] = scheduled_rate(config, iteration)
        predictions, targets, masks = model(batch.image), batch.targets(), batch.masks()
        if iteration == 0:
            loss_fn.initialize_from(predictions, targets, masks)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss_fn(predictions, targets, masks).total.backward()
        for optimizer in optimizers:
            optimizer.step()
    return model, loss_fn


def errors_on_training_set(config: TrainConfig, model: SceneNet) -> dict[str, Errors]:
    """Errors of the regression tasks; targets and masks come straight from the files."""
    files = training_files(config.data)
    errors: dict[str, list[Errors]] = {task: [] for task in REGRESSION}
    for path, outputs in zip(files, predicted(config, model), strict=True):
        noisy, clean = (
            read_targets(config.data, path, ""),
            read_targets(config.data, path, "_clean"),
        )
        for task in REGRESSION:
            target, truth, prediction = noisy[task], clean[task], outputs[task]
            both = ~np.isnan(target) & ~np.isnan(truth)
            errors[task].append(
                Errors(
                    (target - prediction)[~np.isnan(target)],
                    (target - truth)[both],
                    (truth - prediction)[both],
                )
            )
    return {
        task: Errors(*(np.concatenate(parts) for parts in zip(*found, strict=True)))
        for task, found in errors.items()
    }


@torch.no_grad()
def predicted(config: TrainConfig, model: SceneNet) -> Iterator[dict[str, np.ndarray]]:
    """Predictions of each training image, in the order of the files.

    Batch norm uses the statistics of the batch, as it does while sigma is learned: with its running
    means, the predictions would be different.
    """
    dataset = CityscapesDataset(config.data, "train", config.size, config.tasks)
    order = in_order(dataset, config.batch_size)
    for batch in batches(dataset, order, config.tasks):
        outputs = {task: value.numpy() for task, value in model(batch.image).items()}
        for k in range(len(batch.image)):
            yield {task: value[k].astype(np.float64) for task, value in outputs.items()}


def training_files(root: Path) -> list[str]:
    """City and stem of every training image."""
    images = sorted((root / "leftImg8bit" / "train").glob("*/*_leftImg8bit.png"))
    return [f"{p.parent.name}/{p.name.removesuffix('_leftImg8bit.png')}" for p in images]


def read_targets(root: Path, path: str, suffix: str) -> dict[str, np.ndarray]:
    """Offsets (2, H, W) and disparities (1, H, W) in pixels of the image; nan is unlabelled.

    Args:
        root: Folder of the data set.
        path: City and stem.
        suffix: ``"_clean"`` for what was there before the noise.
    """
    instances, labels, raw = (
        np.asarray(Image.open(root / f"{package}{suffix}" / "train" / f"{path}_{kind}.png"))
        for package, kind in (
            ("gtFine", "gtFine_instanceIds"),
            ("gtFine", "gtFine_labelIds"),
            ("disparity", "disparity"),
        )
    )
    offsets = np.full((2, *instances.shape), np.nan)
    for number in np.unique(instances[np.isin(instances // 1000, _THINGS)]):
        row, column = np.nonzero(instances == number)
        offsets[0, row, column] = column.mean() - column
        offsets[1, row, column] = row.mean() - row
    disparity = np.where(raw > 0, (raw.astype(np.float64) - 1) / 256, np.nan)
    disparity[(raw == 0) & (labels == LABEL_ID["sky"])] = 0.0
    return {"instance": offsets, "depth": disparity[None]}
