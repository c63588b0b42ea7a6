"""Whether a learned sigma is what its likelihood says of noise and residual together.

Trains on generated scenes whose labels and disparities carry noise of a known amount, and compares
each regression head's sigma with `sqrt(2) * mean |noise + residual|` (Laplace) or the root of the
mean square (Gaussian) over the training set, computed from the files.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from benchmarks.result_file import Goal, Report, Table
from benchmarks.run_settings import Settings
from examples.cityscapes.config import TrainConfig, new_config
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import TrainingOrder, in_order
from examples.cityscapes.labels import IGNORE_INDEX, LABEL_ID, TRAIN_CLASSES
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.training.loaders import training_data
from examples.cityscapes.training.state import build_optimizers, scheduled_rate
from examples.rendered_scenes import synthesize
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

HEADS = {"laplace": LaplaceHead, "gaussian": GaussianHead}
REGRESSION = ("instance", "depth")
LEVELS = ((0.25, 0.01), (0.5, 0.03), (1.0, 0.1))
"""Disparity noise in pixels and share of wrong labels."""

THREADS = None

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
    """A line of the table; all but the names are in pixels, as sigma is."""

    head: str
    task: str
    noise: float
    residual: float
    expected: float
    learned: float


def laplace_sigma(error: np.ndarray) -> float:
    """The sigma of which a Laplace likelihood is the highest."""
    return float(np.sqrt(2) * np.abs(error).mean())


def gaussian_sigma(error: np.ndarray) -> float:
    """The sigma of which a Gaussian likelihood is the highest."""
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

    Batch norm goes by the batch, as it does while sigma is learned: by its running means, the
    network is another one.
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
        root: Of the data set.
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


def run(settings: Settings) -> Report:
    """Train at every level of noise with heads of both kinds."""
    iterations, scenes = settings.choose((1200, 200), (60, 24), (4, 8))
    network: dict[str, object] = {"preset": "quick", "iterations": iterations, "batch_size": 4}
    # Sigma averages over 1 / (0.1 * 0.25) = 40 steps of a Laplace head, 20 of a Gaussian one.
    network |= {"sigma_lr": 0.1, "seed": settings.seed, "device": settings.device.type}
    network |= settings.choose({}, {}, {"stages": 1, "aspp_channels": 4, "decoder_channels": 4})
    rows = []
    with settings.folder("sigma_of_noise") as folder:
        for disparity_noise, label_noise in settings.choose(LEVELS, LEVELS[-1:], LEVELS[-1:]):
            data = folder / f"scenes_{disparity_noise}_{label_noise}_{scenes}_{settings.seed}"
            if not data.is_dir():
                noise = {"disparity_noise": disparity_noise, "label_noise": label_noise}
                synthesize(data, train=scenes, val=1, size=(64, 128), seed=settings.seed, **noise)
            level = f"{disparity_noise} px, {label_noise:.0%}"
            for head in HEADS:
                config = new_config(network | {"data": data, "out": folder / head})
                rows += [(level, row) for row in measure(config, head)]
    about = (
        "Each regression head's learned sigma beside what its likelihood says of the errors over "
        "the training set, computed from the files and the predictions: `sqrt(2) * mean |noise + "
        "residual|` for Laplace, the root of the mean square for Gaussian. Noise alone is that "
        "figure of noisy less clean targets, residual alone of clean targets less predictions; all "
        f"in pixels. {scenes} scenes of 64x128 with `--disparity-noise` and `--label-noise`, "
        f"the network of the preset `quick`, {iterations} iterations of batch 4, mirrored at "
        "random, which the statistic does not see."
    )
    columns = ["noise", "head", "task", "noise alone", "residual alone", "both", "learned", "ratio"]
    furthest = max(abs(row.learned / row.expected - 1) for _, row in rows)
    goal = Goal("furthest ratio from 1", 0.1, furthest)
    return Report(
        "Is the learned sigma that of noise and residual?",
        about,
        [Table("Sigma, px", columns, [as_cells(level, row) for level, row in rows])],
        [goal],
    )


def as_cells(level: str, row: NoiseRow) -> list[str]:
    """Return a line of the table."""
    figures = (row.noise, row.residual, row.expected, row.learned)
    ratio = f"{row.learned / row.expected:.3f}"
    return [level, row.head, row.task, *(f"{figure:.3f}" for figure in figures), ratio]
