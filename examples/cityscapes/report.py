"""The report of a demo: one HTML file that needs nothing else."""

import base64
import io
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import torch
from PIL import Image

from examples.cityscapes.colors import (
    color_classes,
    color_disparity,
    color_instances,
    number_alike,
)
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.curves import draw_curves, running_mean
from examples.cityscapes.data import CityscapesDataset
from examples.cityscapes.evaluate import Metrics, by_network, load_trained
from examples.cityscapes.labels import CLASS_NAMES, NUM_CLASSES, PALETTE
from examples.cityscapes.metric_log import read_log
from examples.cityscapes.samples import Sample
from examples.cityscapes.scene import Arrays, to_arrays

NUM_PICTURES = 4

FIGURES = {
    "semantic_iou_present": ("mean IoU", "classes present, higher is better"),
    "semantic_iou": ("mean IoU", "official rule, higher is better"),
    "instance_error_px": ("offset error", "|dx| + |dy| in px, lower is better"),
    "instance_rand_index": ("Rand index", "of instances, adjusted, higher is better"),
    "depth_error_px": ("depth error", "disparity in px, lower is better"),
}

OPTIMAL_SHARE = {"semantic": 0.5, "instance": 1.0, "depth": 1.0}
"""Weight times loss where sigma is at its optimum: c of `weight = c / loss`."""


class Run(NamedTuple):
    """A finished run."""

    config: TrainConfig
    metrics: Metrics
    iterations: int
    """Fewer than asked for if the time ran out."""
    seconds: float
    """Of training."""


def render_report(runs: list[Run], data: Path) -> str:
    """Return the page for one or more runs on the same data."""
    logs = {_name(run): read_log(run.config.out / "metrics.jsonl") for run in runs}
    learned = {name: lines for name, lines in logs.items() if lines and lines[0]["sigma"]}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures, seen = _pictures(runs, data)
    return environment.get_template("report.html.jinja").render(
        runs=[(_name(run), run) for run in runs],
        figures=_figure_rows(runs),
        per_class=_class_rows(runs),
        curves=[
            draw_curves(logs, "loss", "loss (running mean of 50)"),
            draw_curves(learned, "sigma", "sigma"),
            draw_curves(learned, "weight", "weight"),
        ],
        weights=[row for lines in learned.values() for row in weight_rows(lines)],
        pictures=pictures,
        legend=[(CLASS_NAMES[k], _hex(PALETTE[k])) for k in seen],
    )


def weight_rows(lines: list[dict[str, Any]], window: int = 100) -> list[dict[str, Any]]:
    """Compare each learned weight with its optimum for the recent losses."""
    rows = []
    for task, weight in lines[-1]["weight"].items():
        losses = [line["loss"][task] for line in lines if line["loss"][task] is not None]
        if losses:
            recent = float(running_mean(np.array(losses), window)[-1])
            optimum = OPTIMAL_SHARE[task] / recent
            sigma = lines[-1]["sigma"][task]
            rows.append({"task": task, "sigma": sigma, "loss": recent, "weight": weight})
            rows[-1] |= {"optimum": optimum, "deviation": weight / optimum - 1}
    return rows


def _figure_rows(runs: list[Run]) -> list[tuple[str, str, list[str]]]:
    columns = [run.metrics for run in runs]
    columns += [runs[0].metrics["untrained"], runs[0].metrics["position_prior"]]
    return [
        (title, direction, [_number(column.get(figure)) for column in columns])
        for figure, (title, direction) in FIGURES.items()
    ]


def _class_rows(runs: list[Run]) -> list[tuple[str, list[str]]]:
    columns = [run.metrics for run in runs]
    columns += [runs[0].metrics["untrained"], runs[0].metrics["position_prior"]]
    rows = [(name, [c["semantic_iou_per_class"][name] for c in columns]) for name in CLASS_NAMES]
    # The untrained network guesses classes that occur nowhere.
    return [(name, [_number(v) for v in values]) for name, values in rows if values[-1] is not None]


def _pictures(runs: list[Run], data: Path) -> tuple[list[dict[str, Any]], list[int]]:
    config = runs[0].config
    dataset = CityscapesDataset(data, "val", config.size, config.tasks)
    device = torch.device("cpu")
    networks = {_name(run): by_network(load_trained(run.config), device) for run in runs}
    # Spread over the split, never chosen by how well they came out.
    chosen = np.linspace(0, len(dataset) - 1, min(NUM_PICTURES, len(dataset))).astype(int)
    pictures, seen = [], np.zeros(256, dtype=bool)
    for index in chosen:
        sample = dataset.read(int(index))
        maps = {n: to_arrays(f(sample.image.unsqueeze(0))) for n, f in networks.items()}
        pictures.append(_one_scene(sample, maps))
        for classes in (sample.semantic.numpy(), *(arrays["classes"] for arrays in maps.values())):
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
    shades = {
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
        arrays["instances"], truth["instances"] = number_alike(arrays["instances"], true_ids)
    rows["true"] = truth
    return {
        "input": _data_uri(sample.image.permute(1, 2, 0).numpy()),
        "columns": [
            (
                title,
                [(row, _data_uri(shades[name](arrays[name]))) for row, arrays in rows.items()],
            )
            for name, title in (
                ("classes", "classes"),
                ("instances", "instances"),
                ("inverse_depth", "inverse depth"),
            )
        ],
    }


def _name(run: Run) -> str:
    return {"uncertainty": "learned weights", "equal": "equal weights"}.get(
        run.config.weighting, run.config.weighting
    )


def _data_uri(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _hex(color: np.ndarray) -> str:
    return "#" + "".join(f"{int(channel):02x}" for channel in color)
