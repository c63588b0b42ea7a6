"""What the official scripts are given, and running them in a process of their own."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image

from examples.cityscapes.data.files import Frame
from examples.cityscapes.data.read_image import read_instance_ids, read_label_ids
from examples.cityscapes.data.targets import label_ids_from_instance_ids
from examples.cityscapes.evaluation.distances import instance_distances
from examples.cityscapes.evaluation.official_files import instance_file, semantic_file
from examples.common.errors import InputError


def job_of(frames: list[Frame], predictions: Path, scratch: Path) -> dict[str, Any]:
    """Return which files the scripts compare; what they need beside them goes to `scratch`."""
    job: dict[str, Any] = {"label_ids": [], "instance_ids": [], "semantic": [], "instance": []}
    distances = {}
    truth = scratch / "gtFine/val/city"  # of just these frames
    truth.mkdir(parents=True)
    for frame in frames:
        labels, instances = _truth_files(frame, truth)
        job["label_ids"].append(str(labels))
        job["instance_ids"].append(str(instances))
        job["semantic"].append(str(semantic_file(predictions, frame.stem).absolute()))
        found = instance_distances(frame, read_instance_ids(truth_of(frame)))
        if found is not None:
            distances[str(instances)] = found
    if (predictions / "instance").is_dir():
        paths = [instance_file(predictions, frame.stem).absolute() for frame in frames]
        job["instance"] = [str(path) for path in paths]
    table = predictions / "cityscapes_panoptic_val.json"
    return {
        **job,
        "root": str(predictions.absolute()),
        "distances": distances,
        "panoptic": str(table.absolute()) if table.is_file() else None,
        "truth": str(scratch / "gtFine"),
    }


def _truth_files(frame: Frame, folder: Path) -> tuple[Path, Path]:
    """Return the files of labels and of instances, side by side and named as the scripts want."""
    instances = folder / f"{frame.stem}_gtFine_instanceIds.png"
    instances.symlink_to(truth_of(frame).absolute())
    labels = folder / f"{frame.stem}_gtFine_labelIds.png"
    if frame.label_ids is not None:
        labels.symlink_to(frame.label_ids.absolute())
        return labels, instances
    ids = torch.from_numpy(read_instance_ids(instances))
    Image.fromarray(label_ids_from_instance_ids(ids).numpy().astype(np.uint8)).save(labels)
    return labels, instances


def truth_of(frame: Frame) -> Path:
    """Return the file of the instance ids, which the frames of an official evaluation all have."""
    return cast(Path, frame.instance_ids)


def labels_of(frame: Frame, ids: torch.Tensor) -> torch.Tensor:
    """Return the label ids of a frame, or what its instance ids tell of them."""
    if frame.label_ids is None:
        return label_ids_from_instance_ids(ids)
    return torch.from_numpy(read_label_ids(frame.label_ids))


def run_scripts(job: dict[str, Any], scratch: Path) -> dict[str, Any]:
    """Return what the official scripts find for a job."""
    job_file, result_file = scratch / "job.json", scratch / "result.json"
    job_file.write_text(json.dumps(job), encoding="utf-8")
    program = Path(__file__).with_name("official_scripts.py").absolute()
    done = subprocess.run(  # noqa: S603
        [sys.executable, str(program), str(job_file), str(result_file)],
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode or not result_file.is_file():
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing said"]
        raise InputError(f"the official scripts failed: {said[-1].strip()}")
    return _without_nan(json.loads(result_file.read_text(encoding="utf-8")))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
