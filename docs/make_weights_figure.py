"""Draw README's first figure: what the losses of its quick start do, and what the weights do then.

Run from the root: ``python docs/make_weights_figure.py``.
"""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from examples.common.figure_style import STYLE, WIDTH  # noqa: E402
from uncertainty_mtl import UncertaintyWeightedLoss  # noqa: E402 - of this working tree

COLORS = {"price": "#3182bd", "sold": "#e6550d"}
STEPS, WINDOW = 600, 10
LABELS = {"price": "price: 1 / (2 · 2²)", "sold": "sold"}


def train() -> dict[str, dict[str, list[float]]]:
    """Train as the quick start does, and return errors and weights of every step by task."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3))
    loss_fn = UncertaintyWeightedLoss({"price": "gaussian", "sold": "softmax"})
    groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
    optimizer = torch.optim.AdamW(groups, lr=1e-2)
    recorded = {what: {task: [] for task in COLORS} for what in ("errors", "weights")}
    for _ in range(STEPS):
        x = torch.randn(256, 4)
        targets = {
            "price": 5 * x[:, 0] + 2 * torch.randn(256),
            "sold": (x[:, 1] + torch.randn(256) > 0).long(),
        }
        output = model(x)
        losses = loss_fn({"price": output[:, 0], "sold": output[:, 1:]}, targets)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        for what, values in (("errors", losses.errors), ("weights", loss_fn.weights())):
            for task, value in values.items():
                recorded[what][task].append(value.item())
    return recorded


def draw(recorded: dict[str, dict[str, list[float]]]) -> Figure:
    """Draw the losses on the left, and the weights on the right beside their optima."""
    figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2)
    for task, color in COLORS.items():
        errors = np.array(recorded["errors"][task])
        # The mean over the steps up to this one: a single batch is noisy.
        sums = np.cumsum(errors)
        sums[WINDOW:] -= sums[:-WINDOW].copy()
        means = sums / np.minimum(np.arange(STEPS) + 1, WINDOW)
        left.plot(errors, color=color, alpha=0.3, linewidth=0.8)
        left.plot(means, color=color)
        right.plot(recorded["weights"][task], color=color)
        right.plot(0.5 / means, ":", color=color)
        left.annotate(task, (STEPS, means[-1]), (4, 0), textcoords="offset points", va="center")
        right.annotate(
            LABELS[task], (STEPS, 0.5 / means[-1]), (4, 0), textcoords="offset points", va="center"
        )
    left.set_title("loss of each task")
    right.set_title("its weight (dotted: 1 / (2 loss))")
    for axis in (left, right):
        axis.set_yscale("log")
        axis.set_xlabel("training step")
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlim(0, STEPS * 1.02)
    return figure


def main() -> None:
    """Write the figure."""
    with matplotlib.rc_context(STYLE):
        draw(train()).savefig(ROOT / "docs/images/weights.png")


if __name__ == "__main__":
    main()
