"""Problems of rows and columns: a small network predicts several columns from the others."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.weighting.one_training import Errors
from benchmarks.weighting.ways import Losses


@dataclass(frozen=True)
class Rows:
    """One split: inputs (N, D), and a column (N,) for each task.

    Classes are integers; numbers are floating, and nan where a row has no label.
    """

    inputs: Tensor
    targets: dict[str, Tensor]

    def __getitem__(self, chosen: Tensor) -> "Rows":
        return Rows(self.inputs[chosen], {k: t[chosen] for k, t in self.targets.items()})


Splits = dict[str, Rows]
"""`train`, `validation` and `test`."""


@dataclass(frozen=True)
class TableProblem:
    """A problem: the data for each seed, and the network that learns them."""

    name: str
    load: Callable[[int], Splits]
    num_outputs: Mapping[str, int]
    """Outputs of each task: its number of classes, or 1 for a regression."""
    hidden: tuple[int, ...] = (64, 64)
    epochs: int = 80
    batch_size: int = 32
    num_rows: int = 1024
    """How many rows the training data has."""
    learning_rate: float = 3e-3

    @property
    def likelihoods(self) -> dict[str, str]:
        """The likelihood of each task's loss."""
        return {k: "softmax" if n > 1 else "gaussian" for k, n in self.num_outputs.items()}

    @property
    def epoch(self) -> int:
        """Steps in which every row is seen once; those that fill no batch are left out."""
        return self.num_rows // self.batch_size

    @property
    def steps(self) -> int:
        """Steps of a training."""
        return self.epochs * self.epoch

    def start(self, seed: int) -> "TableSession":
        """Return a training that is about to start."""
        return TableSession(self, seed)


class TableSession:
    """One training of a table."""

    def __init__(self, table: TableProblem, seed: int) -> None:
        self.table, self.splits = table, table.load(seed)
        widths = [self.splits["train"].inputs.shape[1], *table.hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.Linear(widths[-1], sum(table.num_outputs.values())))
        self.order = torch.Generator().manual_seed(seed)

    def losses(self) -> Iterator[Losses]:
        """Yield the mean squared errors and cross-entropies of one batch after the other."""
        rows, size = self.splits["train"], self.table.batch_size
        for _ in range(self.table.epochs):
            shuffled = torch.randperm(self.table.num_rows, generator=self.order)
            for number in range(self.table.epoch):
                batch = rows[shuffled[number * size : (number + 1) * size]]
                outputs = self.predict(batch.inputs)
                yield {task: loss_of(outputs[task], t) for task, t in batch.targets.items()}

    def predict(self, inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs of each task, (N, classes) or (N, 1)."""
        counts = self.table.num_outputs
        return dict(zip(counts, self.model(inputs).split(list(counts.values()), 1), strict=True))

    @torch.no_grad()
    def errors(self, split: str) -> Errors:
        """Return RMS errors over the deviation for numbers, and Brier scores for classes."""
        rows = self.splits[split]
        outputs = self.predict(rows.inputs)
        found = {}
        for task, target in rows.targets.items():
            if self.table.num_outputs[task] > 1:
                truth = F.one_hot(target, outputs[task].shape[1])
                found[task] = (outputs[task].softmax(1) - truth).square().sum(1).mean().item()
            else:
                truth = target.double()
                missed, valid = outputs[task][:, 0].double() - truth, ~truth.isnan()
                found[task] = float(missed[valid].square().mean().sqrt() / truth[valid].std())
        return found


def loss_of(output: Tensor, target: Tensor) -> Tensor | None:
    """Return the mean over the labelled rows, or None if there are none."""
    if not target.is_floating_point():
        return F.cross_entropy(output, target)
    labelled = ~target.isnan()
    if not labelled.any():
        return None
    return F.mse_loss(output[:, 0][labelled], target[labelled])
