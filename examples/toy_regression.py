"""Two regressions with noise of 10 and 1: the learned sigmas find both, wherever they start.

The toy of the McGill report on the paper: x ~ N(0, 1), y1 = 2x + 8 + 10 e1, y2 = 3x + 3 + e2. One
network with one hidden layer predicts both. Run with ``python examples/toy_regression.py``: it
prints each recovered sigma beside the root mean square (RMS) of the trained network's residuals
on its training data, the number that sigma should equal, and saves the report's five panels.
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

EPOCHS_BY_START = {0.05: 1000, 1.0: 500, 4.48: 500, 50.0: 500}
"""Epochs by initial sigma. Far below its optimum sigma first jumps, and Adam remembers that."""

COLORS = {"y1": "tab:blue", "y2": "tab:orange"}
GREY = "tab:gray"  # readable on white and on black, as the background is transparent
STYLE = {
    "savefig.dpi": 200,
    "savefig.transparent": True,
    "legend.framealpha": 0,
    "text.color": GREY,
    **{f"axes.{part}color": GREY for part in ("edge", "label", "title")},
    **{f"{axis}tick.color": GREY for axis in "xy"},
}


@dataclass(frozen=True)
class ToyRun:
    """One training: the network's fit and what was logged after every epoch."""

    init_sigma: float
    predictions: dict[str, Tensor]
    residual_rms: dict[str, float]
    loss: list[float]
    sigmas: dict[str, list[float]]

    def errors(self) -> dict[str, float]:
        """Return by how much each sigma misses the residual RMS, as a fraction of it."""
        return {task: self.sigmas[task][-1] / rms - 1 for task, rms in self.residual_rms.items()}


def make_data(seed: int = 0, n: int = 1024) -> tuple[Tensor, dict[str, Tensor]]:
    """Return x, shape (n, 1), and the targets by task, shape (n,)."""
    # The legacy generator: with seed 0 these are the very numbers of the report's notebook.
    x, e1, e2 = np.random.RandomState(seed).randn(3, n).astype(np.float32)
    targets = {"y1": 2 * x + 8 + 10 * e1, "y2": 3 * x + 3 + e2}
    return torch.from_numpy(x)[:, None], {k: torch.from_numpy(y) for k, y in targets.items()}


class ToyNet(nn.Module):
    """One hidden layer of 64 units, and one linear output per task."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Linear(64, 2))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return the predictions by task, shape (n,)."""
        return dict(zip(("y1", "y2"), self.layers(x).unbind(1), strict=True))


def train(init_sigma: float, epochs: int, seed: int = 0, progress: bool = False) -> ToyRun:
    """Train network and sigmas together: Adam at 1e-3 for both, batches of 32."""
    x, targets = make_data(seed)
    torch.manual_seed(seed)
    model = ToyNet()
    loss_fn = UncertaintyWeightedLoss({k: GaussianHead(init_sigma=init_sigma) for k in targets})
    groups = [{"params": model.parameters()}, *loss_fn.param_groups(lr=None)]
    optimizer = torch.optim.Adam(groups, lr=1e-3, fused=True)
    loss_fn.check_optimizer(optimizer)

    losses: list[float] = []
    sigmas: dict[str, list[float]] = {task: [] for task in targets}
    title = f"sigma from {init_sigma:g}"
    for _ in tqdm(range(epochs), title, unit="epoch", disable=not progress, file=sys.stderr):
        for batch in torch.randperm(len(x)).split(32):
            total = loss_fn(model(x[batch]), {k: y[batch] for k, y in targets.items()}).total
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
        losses.append(total.item())
        for task, sigma in loss_fn.sigmas().items():
            sigmas[task].append(sigma.item())

    with torch.no_grad():
        predictions = model(x)
    rms = {k: (predictions[k] - y).square().mean().sqrt().item() for k, y in targets.items()}
    return ToyRun(init_sigma, predictions, rms, losses, sigmas)


@mpl.rc_context(STYLE)
def plot(runs: list[ToyRun], path: Path, seed: int = 0) -> None:
    """Save the report's panels: data, prediction, loss, and sigma from the first two runs."""
    x, targets = make_data(seed)
    figure = Figure(figsize=(7.4, 5.2), layout="constrained")
    axes = list(figure.subplot_mosaic("aabbcc;dddeee").values())
    for task, color in COLORS.items():
        axes[0].scatter(x[:, 0], targets[task], s=3, color=color, label=task)
        axes[1].scatter(x[:, 0], runs[0].predictions[task], s=3, color=color, label=task)
    axes[2].plot(runs[0].loss, color=GREY, linewidth=0.8)
    for axis, run in zip(axes[3:], runs, strict=False):
        for task, color in COLORS.items():
            axis.plot(run.sigmas[task], color=color, label=rf"$\sigma$ of {task}")
            axis.axhline(run.residual_rms[task], color=color, linestyle=":", label="residual RMS")
        axis.set(title=rf"$\sigma$ from {run.init_sigma:g}", xlabel="epoch", yscale="log")
    axes[0].set(title="data", xlabel="x", ylabel="y")
    axes[1].set(title="prediction", xlabel="x", ylim=axes[0].get_ylim())
    axes[2].set(title="loss (last batch)", xlabel="epoch")
    for axis in (*axes[:2], *axes[3:]):
        axis.legend(fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def main() -> None:
    """Train from every start, print what was recovered, and save the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/toy_regression.png"))
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.set_num_threads(1)  # for a network this small, sharing the work costs more than it saves
    runs = {
        start: train(start, epochs, args.seed, progress=True)
        for start, epochs in EPOCHS_BY_START.items()
    }
    print(f"{'start':>7}  {'epochs':>6}  task    sigma  residual RMS  difference")
    for start, run in runs.items():
        for task, error in run.errors().items():
            sigma, rms = run.sigmas[task][-1], run.residual_rms[task]
            print(
                f"{start:7g}  {len(run.loss):6d}  {task}  {sigma:9.4f}  {rms:12.4f}  {error:10.2%}"
            )
    plot([runs[1.0], runs[4.48]], args.out, args.seed)
    print(f"Saved {args.out}")


if __name__ == "__main__":
    main()
