"""The three tasks of the CityScapes example on rendered scenes."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.scene_trees import prepared_tree, raw_tree
from benchmarks.weighting.one_training import Errors
from benchmarks.weighting.ways import Losses
from examples.cityscapes.config import TrainConfig, new_config
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import TrainingOrder, in_order
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.settings import TASKS
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.losses import base_losses
from examples.cityscapes.training.validation import FIGURES, validate


class Scenes:
    """Classes, vectors to centres and disparity from one image, with the network of a preset."""

    likelihoods: Mapping[str, str] = dict(
        zip(TASKS, ("softmax", "laplace", "laplace"), strict=True)
    )

    def __init__(self, folder: Path, preset: str, num_train: int, num_val: int, **options: object):
        """Render what is not in the folder yet; validation and test scenes are different."""
        config = new_config({"preset": preset, "data": folder, "out": folder, **options})
        self.name = f"rendered scenes, `{preset}`"
        trees = [
            prepared_tree(folder, raw_tree(folder, size=config.size, **what), config.size)
            for what in (
                {"train": num_train, "val": num_val, "seed": 0},
                {"train": 1, "val": num_val, "seed": 10_000},
            )
        ]
        self.trees = dict(zip(("validation", "test"), trees, strict=True))
        self.config = config
        self.steps, self.learning_rate = config.iterations, config.learning_rate
        self.epoch = num_train // config.batch_size

    def start(self, seed: int) -> "SceneSession":
        """Return the data and the initial network."""
        return SceneSession(self, seed)


class SceneSession:
    """One training."""

    def __init__(self, problem: Scenes, seed: int) -> None:
        self.config: TrainConfig = replace(problem.config, seed=seed)
        self.trees = problem.trees
        self.dataset = CityscapesDataset(
            self.trees["validation"], "train", self.config.size, self.config.tasks
        )
        self.dataset.keep(self.config.cache_mb)
        self.model = initial_model(self.config, self.dataset, None)

    def losses(self) -> Iterator[Losses]:
        """Yield cross-entropy and mean absolute errors; None where a batch has no instance."""
        order = TrainingOrder(
            len(self.dataset),
            self.config.batch_size,
            start=0,
            stop=self.config.iterations,
            seed=self.config.seed,
            augment=False,
        )
        self.model.train()
        for batch in batches(self.dataset, order, self.config.tasks):
            found = base_losses(self.model(batch.image), batch.targets(), batch.masks())
            yield {
                task: loss.summed / loss.num_valid if loss.num_valid else None
                for task, loss in found.items()
            }

    def errors(self, split: str) -> Errors:
        """Return missed mean IoU of the classes present, and errors in pixels."""
        dataset = CityscapesDataset(self.trees[split], "val", self.config.size, self.config.tasks)
        shares = batches(dataset, in_order(dataset), self.config.tasks)
        with torch.no_grad():
            figures = validate(self.model, shares, Ranks(torch.device("cpu")))
        iou, vectors, disparity = (figures[name] for name in FIGURES)
        return {"1 - IoU": 1 - iou, "vectors, px": vectors, "disparity, px": disparity}
