"""Validation images for the report: what runs predict beside the truth, as data in the page."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.data.sample import Sample
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.evaluation.predictors import by_network
from examples.cityscapes.labels import NUM_CLASSES
from examples.cityscapes.scene.colors import (
    color_classes,
    color_disparity,
    color_instances,
    number_alike,
)
from examples.cityscapes.scene.maps import Arrays, to_arrays

NUM_PICTURES = 4


def draw_scenes(
    configs: dict[str, TrainConfig], data: Path, checkpoint: str = "last"
) -> tuple[list[dict[str, Any]], list[int]]:
    """Draw what runs predict for some validation images, beside the truth.

    Args:
        configs: The configuration of every run by its name; the first decides size and tasks.
        data: The dataset.
        checkpoint: `last` or `best`.

    Returns:
        The scenes for the template, and the train ids that occur in them.
    """
    config = next(iter(configs.values()))
    dataset = CityscapesDataset(data, "val", config.size, config.tasks)
    device = torch.device("cpu")
    networks = {
        name: by_network(load_trained(config, checkpoint), device)
        for name, config in configs.items()
    }
    # Spread over the split, never chosen by how well they came out.
    chosen = np.linspace(0, len(dataset) - 1, min(NUM_PICTURES, len(dataset))).astype(int)
    pictures, seen = [], np.zeros(256, dtype=bool)
    for index in chosen:
        sample = dataset.read(int(index))
        maps = {n: to_arrays(f(sample.image.unsqueeze(0))) for n, f in networks.items()}
        pictures.append(_one_scene(sample, maps))
        if "semantic" in config.tasks:
            for classes in (sample.semantic.numpy(), *(a["classes"] for a in maps.values())):
                seen[np.unique(classes)] = True
    return pictures, [int(k) for k in np.flatnonzero(seen[:NUM_CLASSES])]


def _one_scene(sample: Sample, predicted: dict[str, Arrays]) -> dict[str, Any]:
    truth = {
        "classes": sample.semantic.numpy(),
        "instances": sample.instance_ids.numpy(),
        "inverse_depth": sample.disparity.numpy(),
    }
    known = truth["inverse_depth"][~np.isnan(truth["inverse_depth"])]
    # One scale for truth and predictions; a single very near pixel must not darken everything.
    largest = float(np.percentile(known, 99)) if known.size else 1.0
    shades: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "classes": color_classes,
        "instances": color_instances,
        "inverse_depth": lambda values: color_disparity(values, largest),
    }
    rows = {
        "predicted" if len(predicted) == 1 else f"predicted with {name}": dict(arrays)
        for name, arrays in predicted.items()
    }
    true_ids = truth["instances"]
    for arrays in rows.values():
        if "instances" in arrays:
            arrays["instances"], truth["instances"] = number_alike(arrays["instances"], true_ids)
    rows["true"] = truth
    return {
        "input": _data_uri(sample.image.permute(1, 2, 0).numpy()),
        "columns": [
            (
                name.replace("_", " "),
                [(row, _data_uri(shade(arrays[name]))) for row, arrays in rows.items()],
            )
            for name, shade in shades.items()
            if all(name in arrays for arrays in rows.values())
        ],
    }


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
