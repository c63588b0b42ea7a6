"""The three tasks of the CityScapes example on rendered scenes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.scene_trees import generated_scenes
from benchmarks.weighting.one_training import Errors
from benchmarks.weighting.ways import Losses
from examples.cityscapes.config import new_config
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import in_order
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.loaders import load, training_data
from examples.cityscapes.training.losses import base_losses
from examples.cityscapes.training.validation import validate

RANKS = Ranks(torch.device("cpu"))


class Scenes:
    """Classes, vectors to centres and disparity from one image, with the network of a preset."""

    def __init__(self, folder: Path, preset: str, num_train: int, num_val: int, **options: object):
        """Render what is not in the folder yet; test scenes are different from all others."""
        self.likelihoods = {"semantic": "softmax", "instance": "laplace", "depth": "laplace"}
        self.name = f"rendered scenes, `{preset}`"
        given = {"preset": preset, "data": folder, "out": folder, "flip": False, "num_workers": 0}
        config = new_config({**given, **options})
        size = config.size
        data = generated_scenes(folder, train=num_train, val=num_val, size=size, seed=0)
        self.test = generated_scenes(folder, train=1, val=num_val, size=size, seed=10_000)
        self.config = replace(config, data=data)
        self.steps, self.learning_rate = config.iterations, config.learning_rate
        self.epoch = num_train // config.batch_size

    def start(self, seed: int) -> "SceneSession":
        """Return a training that is about to start."""
        return SceneSession(self, seed)


class SceneSession:
    """One training on rendered scenes."""

    def __init__(self, problem: Scenes, seed: int) -> None:
        self.config = replace(problem.config, seed=seed)
        self.folders = {"validation": self.config.data, "test": problem.test}
        self.dataset = training_data(self.config)
        self.model = initial_model(self.config, self.dataset, None)

    def losses(self) -> Iterator[Losses]:
        """Yield cross-entropy and mean absolute errors; None where a batch has no instance."""
        self.model.train()
        for batch in load(self.config, self.dataset, 0, RANKS):
            found = base_losses(self.model(batch.image), batch.targets(), batch.masks())
            yield {
                task: loss.summed / loss.num_valid if loss.num_valid else None
                for task, loss in found.items()
            }

    @torch.no_grad()
    def errors(self, split: str) -> Errors:
        """Return 1 minus the mean IoU of the classes present, and the errors in pixels."""
        config = self.config
        dataset = CityscapesDataset(self.folders[split], "val", config.size, config.tasks)
        figures = validate(self.model, batches(dataset, in_order(dataset), config.tasks), RANKS)
        return {
            "1 - IoU": 1 - figures["semantic_iou_present"],
            "vectors, px": figures["instance_error_px"],
            "disparity, px": figures["depth_error_px"],
        }
