"""The three tasks on generated scenes at the small size, trained with weights of any kind."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.outcomes import Outcome
from benchmarks.run_settings import Settings
from benchmarks.scene_trees import prepared_tree, raw_tree
from examples.cityscapes.config import TrainConfig, new_config
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.evaluation.evaluate import by_network, load_trained, measure
from examples.cityscapes.training.train import train
from examples.cityscapes.training.validation import FIGURES, selection_error
from examples.common.checkpoint import write_atomically

VARIANTS_OF_SCENES = ("learned", "closed form", "unit sum", "equal")
GRID_OF_SCENES = ("1,0.1,0.3", "1,0.02,0.1", "1,0.02,0.5", "1,0.5,0.5")
"""Weights of classes, vectors and disparity, as `--weighting fixed:` takes them."""

_OPTIONS: dict[str, dict[str, object]] = {
    "learned": {},
    "closed form": {"estimator": "closed_form"},
    "unit sum": {"constraint": "unit_sum"},
    "equal": {"weighting": "equal"},
}


def train_on_scenes(settings: Settings, folder: Path) -> Callable[[str, int], Outcome]:
    """Return what trains on generated scenes, which are made here.

    What a training ended with is kept in `folder`: an interrupted comparison goes on after it.
    """
    size = settings.choose((64, 128), (64, 128), (32, 64))
    num_train, num_val = settings.choose((600, 60), (48, 8), (16, 2))
    iterations = settings.choose(150, 10, 2)
    raw = raw_tree(folder, train=num_train, val=num_val, size=size, seed=settings.seed)
    data = prepared_tree(folder, raw, size)
    # Other scenes than the best of the grid is chosen by; its training split is not used.
    raw = raw_tree(folder, train=1, val=num_val, size=size, seed=settings.seed + 10_000)
    test = prepared_tree(folder, raw, size)

    def train_one(variant: str, seed: int) -> Outcome:
        out = folder / f"{variant.replace(' ', '_')}_{seed}_{iterations}"
        result = out / "outcome.json"
        if result.is_file():
            return Outcome(**json.loads(result.read_text(encoding="utf-8")))
        shutil.rmtree(out, ignore_errors=True)  # interrupted: its compute would be unknown
        weights = _OPTIONS.get(variant, {"weighting": f"fixed:{variant}"})
        small = {"stages": 1, "aspp_channels": 4, "decoder_channels": 4}
        config = new_config(
            {
                "preset": "quick",
                "data": data,
                "out": out,
                "size": size,
                "iterations": iterations,
                "checkpoint_every": iterations,
                "device": settings.device.type,
                "seed": seed,
                **weights,
                **(small if settings.effort == "smoke" else {}),
            }
        )
        start = time.process_time()
        train(config)
        seconds = time.process_time() - start
        chosen_by = look(config, data, settings)
        outcome = Outcome(
            selection_error(*(chosen_by[name] for name in FIGURES)),
            errors_of(look(config, test, settings)),
            seconds,
        )
        write_atomically(result, json.dumps(asdict(outcome)))
        return outcome

    return train_one


def look(config: TrainConfig, data: Path, settings: Settings) -> dict[str, Any]:
    """Return the figures of a trained network on a validation split."""
    dataset = CityscapesDataset(data, "val", config.size, config.tasks)
    return measure(dataset, config.tasks, by_network(load_trained(config), settings.device))


def errors_of(figures: dict[str, Any]) -> dict[str, float]:
    """Return the error of each task: missed IoU, and pixels."""
    return {
        "1 - IoU": 1 - figures["semantic_iou_present"],
        "vectors, px": figures["instance_error_px"],
        "disparity, px": figures["depth_error_px"],
    }
