"""The toy regression, trained with weights of any kind."""

import time
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.outcomes import Outcome, geometric_mean
from examples.toy_regression import ToyNet, make_data
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

VARIANTS_OF_TOY = ("learned", "closed form", "unit sum", "equal")
GRID_OF_TOY = ("0.001", "0.003", "0.01", "0.03", "0.1", "0.3", "0.7", "0.9")
"""The weight of y1; that of y2 is the rest. The variances are 100 and 1."""

ByTask = dict[str, Tensor]

_OPTIONS = {
    "learned": {},
    "closed form": {"estimator": "closed_form"},
    "unit sum": {"constraint": "unit_sum"},
}


def train_toy(variant: str, seed: int, epochs: int) -> Outcome:
    """Train with Adam at 1e-3 on batches of 32, as the example does."""
    x, targets = make_data(seed)
    torch.manual_seed(seed)
    model = ToyNet()
    parameters = [{"params": model.parameters()}]
    total: Callable[[ByTask, ByTask], Tensor]
    if variant in _OPTIONS:
        heads = {task: GaussianHead() for task in targets}
        loss_fn = UncertaintyWeightedLoss(heads, **_OPTIONS[variant])
        parameters += loss_fn.param_groups()

        def total(predictions: ByTask, batch: ByTask) -> Tensor:
            return loss_fn(predictions, batch).total
    else:
        of_y1 = 0.5 if variant == "equal" else float(variant)
        weights = {"y1": of_y1, "y2": 1 - of_y1}

        def total(predictions: ByTask, batch: ByTask) -> Tensor:
            errors = [w * (predictions[t] - batch[t]).square().mean() for t, w in weights.items()]
            return torch.stack(errors).sum()

    optimizer = torch.optim.Adam(parameters, lr=1e-3, fused=True)
    start = time.process_time()
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            loss = total(model(x[batch]), {task: y[batch] for task, y in targets.items()})
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    seconds = time.process_time() - start

    # Validation has the noise that data have; the test compares with the functions behind them.
    validation = list(_root_mean_squares(model, *make_data(seed + 10_000)).values())
    x, _ = make_data(seed + 20_000)
    truth = {"y1": 2 * x[:, 0] + 8, "y2": 3 * x[:, 0] + 3}
    errors = {f"RMS error of {t}": e for t, e in _root_mean_squares(model, x, truth).items()}
    return Outcome(geometric_mean(validation), errors, seconds)


@torch.no_grad()
def _root_mean_squares(model: ToyNet, x: Tensor, targets: ByTask) -> dict[str, float]:
    predictions = model(x)
    return {t: float((predictions[t] - y).square().mean().sqrt()) for t, y in targets.items()}
