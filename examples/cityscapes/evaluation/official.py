"""Figures by the official scripts, from predictions exported for them and for the test server."""

import importlib.util
import math
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from examples.cityscapes.data.files import Frame, find_frames, list_images, stem_of
from examples.cityscapes.data.prepared import is_prepared, read_manifest
from examples.cityscapes.data.read_image import read_instance_ids, read_label_ids, read_rgb
from examples.cityscapes.data.targets import (
    evaluated_instances,
    train_ids,
)
from examples.cityscapes.evaluation.official_files import Exporter, semantic_file
from examples.cityscapes.evaluation.official_job import job_of, labels_of, run_scripts, truth_of
from examples.cityscapes.evaluation.semantic_iou import SemanticIoU
from examples.cityscapes.scene.grouping import Grouping
from examples.cityscapes.scene.maps import predict_scene
from examples.common.errors import InputError
from examples.common.folders import complete_folder

Metrics = dict[str, Any]

OWN_FIGURES = {
    "semantic_iou": "averageScoreClasses",
    "semantic_iiou": "averageScoreInstClasses",
    "category_iou": "averageScoreCategories",
    "category_iiou": "averageScoreInstCategories",
}
"""Figures that both our metrics and the official script compute: our name, and the script's."""

PRECISIONS = {"ap": "allAp", "ap50": "allAp50%", "ap100m": "allAp100m", "ap50m": "allAp50m"}
"""What only the official script computes, by our name and by its own."""

QUALITIES = {"pq": "All", "pq_things": "Things", "pq_stuff": "Stuff"}
"""The panoptic quality by our name, and by the official script's."""


def official_figures(
    model: nn.Module, data: Path, size: tuple[int, int], out: Path, grouping: Grouping
) -> Metrics:
    """Export predictions at the size of the images, and measure them by the official scripts.

    Writes `out/val` and, where the data have a test split, `out/test`; the folder appears when it
    is complete, and takes the place of an earlier one. It stays if the scripts then fail.

    Args:
        model: Trained, in evaluation mode.
        data: Root of the dataset.
        size: Height and width of the network's input.
        out: Folder for the predictions.
        grouping: How votes become instances.
    """
    images, frames = images_to_export(data), find_frames(data, "val")
    with complete_folder(out) as partial:
        for split, paths in images.items():
            export_split(model, paths, size, partial / split, split, grouping)
    return score(frames, out / "val")


def images_to_export(data: Path) -> dict[str, list[Path]]:
    """Return the images of `val` and, if it holds any, those of `test`.

    Raises:
        InputError: If two images of a split have the same name: predictions are exported without
            the folder of the city, so that one would take the place of the other.
    """
    images = {split: list_images(data, split) for split in ("val", "test")}
    for of_split in images.values():
        known: dict[str, Path] = {}
        for image in of_split:
            other = known.setdefault(stem_of(image), image)
            if other != image:
                raise InputError(
                    f"{image}: has the name of {other}; --official needs names that are unique "
                    "in a split"
                )
    return {split: of_split for split, of_split in images.items() if of_split}


def check_official(tasks: tuple[str, ...], data: Path) -> None:
    """Raise unless the official scripts can be run on predictions of `tasks` for a dataset."""
    if is_prepared(data):
        raise InputError(
            f"--official: {data} is a prepared copy, but the official scripts compare at the size "
            f"of the original images; give --data {read_manifest(data)['source']}"
        )
    if "semantic" not in tasks:
        raise InputError("--official: needs a run that was trained on the semantic task")
    if importlib.util.find_spec("cityscapesscripts") is None:
        raise InputError(
            "--official: needs the official scripts; `pip install cityscapesscripts` brings them"
        )
    find_frames(data, "val")
    images_to_export(data)


def export_split(
    model: nn.Module,
    images: list[Path],
    size: tuple[int, int],
    out: Path,
    split: str,
    grouping: Grouping,
) -> None:
    """Write the predictions for some images in the official formats."""
    exporter = Exporter(out, split)
    device = next(model.parameters()).device
    # The bar shows on terminals only: elsewhere, an error should be the only line printed.
    for path in tqdm(images, f"exporting {split}", unit="image", leave=False, disable=None):
        exporter.add(stem_of(path), predict_scene(model, read_rgb(path), size, device, grouping))
    exporter.finish()


def score(frames: list[Frame], predictions: Path) -> Metrics:
    """Measure exported predictions by the official scripts, and by our own metrics.

    Returns:
        The figures in `OWN_FIGURES`, `PRECISIONS` and `QUALITIES` and those of each class;
        `largest_difference` is that between our figures and the official ones.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = run_scripts(job_of(frames, predictions, Path(folder)), Path(folder))
    own = measure_files(frames, predictions)
    theirs = results["semantic"]
    instance = results.get("instance", {"classes": {}})
    figures = {name: theirs[official] for name, official in OWN_FIGURES.items()}
    figures |= {name: instance.get(official) for name, official in PRECISIONS.items()}
    panoptic = results.get("panoptic", {"per_class": {}})
    figures |= {name: panoptic.get(official) for name, official in QUALITIES.items()}
    return {
        **figures,
        "largest_difference": largest_difference(own, theirs),
        "semantic_iou_per_class": _known(theirs["classScores"], own["semantic_iou_per_class"]),
        "semantic_iiou_per_class": _known(theirs["classInstScores"], own["semantic_iou_per_class"]),
        "ap_per_class": {name: scores["ap"] for name, scores in instance["classes"].items()},
        "ap50_per_class": {name: scores["ap50%"] for name, scores in instance["classes"].items()},
        "pq_per_class": panoptic["per_class"],
    }


def measure_files(frames: list[Frame], predictions: Path) -> Metrics:
    """Measure exported class maps by our own metrics."""
    metric = SemanticIoU(pixel_area=1.0)
    for frame in frames:
        ids = torch.from_numpy(read_instance_ids(truth_of(frame)))
        labels = labels_of(frame, ids)
        predicted = torch.from_numpy(read_label_ids(semantic_file(predictions, frame.stem)))
        metric.add(
            train_ids(predicted).unsqueeze(0),
            train_ids(labels).long().unsqueeze(0),
            evaluated_instances(ids).unsqueeze(0),
        )
    return metric.compute()


def largest_difference(own: Metrics, theirs: dict[str, Any]) -> float:
    """Return the largest difference of any figure that both compute, inf if only one has it."""
    pairs = [(own[name], theirs[official]) for name, official in OWN_FIGURES.items()]
    for name, official in (
        ("semantic_iou_per_class", "classScores"),
        ("semantic_iiou_per_class", "classInstScores"),
        ("category_iou_per_category", "categoryScores"),
        ("category_iiou_per_category", "categoryInstScores"),
    ):
        pairs += [(value, theirs[official].get(key)) for key, value in own[name].items()]
    return max(
        0.0 if a is None and b is None else math.inf if a is None or b is None else abs(a - b)
        for a, b in pairs
    )


def _known(scores: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    return {name: scores[name] for name in names}
