"""Draw the pictures of the tutorial on street scenes from a finished ``demo --compare``.

Run from the root: ``python docs/make_figures.py --demo runs/demo --out docs/images``.
"""

import argparse
import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

sys.path.insert(0, str(Path(__file__).parent.parent))

from examples.cityscapes.config import load_config
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.evaluation.predictors import by_network
from examples.cityscapes.report.curves import TASK_COLORS, running_mean
from examples.cityscapes.scene.colors import (
    color_classes,
    color_disparity,
    color_instances,
    number_alike,
)
from examples.cityscapes.scene.maps import to_arrays
from examples.cityscapes.training.log import read_log
from examples.common.figure_style import STYLE, WIDTH

COLUMNS = ("image", "classes", "instances", "inverse depth")


def draw_predictions(demo: Path, scenes: tuple[int, ...]) -> Figure:
    """Draw what the network with learned weights sees in validation scenes, below the truth."""
    config = load_config(demo / "uncertainty")
    dataset = CityscapesDataset(demo / "scenes", "val", config.size, config.tasks)
    network = by_network(load_trained(config), torch.device("cpu"))
    figure = Figure(figsize=(WIDTH, 2.2 * len(scenes)), layout="constrained")
    axes = figure.subplots(2 * len(scenes), len(COLUMNS), squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], COLUMNS, strict=True):
        axis.set_title(title)
    for row, index in enumerate(scenes):
        sample = dataset.read(index)
        found = to_arrays(network(sample.image.unsqueeze(0)))
        depth = sample.disparity.numpy()
        instances = number_alike(found["instances"], sample.instance_ids.numpy())
        nearest = float(np.nanpercentile(depth, 99))
        axes[2 * row, 0].imshow(sample.image.permute(1, 2, 0).numpy())
        below = axes[2 * row + 1, 0]
        below.text(1.0, 0.5, "predicted ", ha="right", transform=below.transAxes)
        truth = (sample.semantic.numpy(), instances[1], depth)
        predicted = (found["classes"], instances[0], found["inverse_depth"])
        for line, (classes, ids, disparity) in enumerate((truth, predicted)):
            pictures = (
                color_classes(classes),
                color_instances(ids),
                color_disparity(disparity, nearest),
            )
            for axis, picture in zip(axes[2 * row + line, 1:], pictures, strict=True):
                axis.imshow(picture, interpolation="nearest")
    return figure


def draw_training(demo: Path) -> Figure:
    """Draw loss, sigma and weight of every task, and where the weight should be."""
    lines = read_log(demo / "uncertainty" / "metrics.jsonl")
    figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
    axes = figure.subplots(1, 3)
    for task, color in TASK_COLORS.items():
        kept = [line for line in lines if line["loss"][task] is not None]
        steps = [line["iteration"] for line in kept]
        loss = running_mean(np.array([line["loss"][task] for line in kept]), 50)
        axes[0].plot(steps, loss, color=color, label=task)
        axes[1].plot(steps, [line["sigma"][task] for line in kept], color=color, label=task)
        axes[2].plot(steps, [line["weight"][task] for line in kept], color=color, label=task)
        axes[2].plot(steps, 1 / loss, ":", color=color, label="1 / loss")
    titles = ("loss (mean of 50)", "sigma", "weight (dotted: 1 / loss)")
    for axis, title in zip(axes, titles, strict=True):
        axis.set(title=title, xlabel="iteration", yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_locator(NullLocator())
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def main() -> None:
    """Draw both figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--demo", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        draw_predictions(args.demo, (0, 39)).savefig(args.out / "demo_predictions.png")
        draw_training(args.demo).savefig(args.out / "demo_training.png")


if __name__ == "__main__":
    main()
