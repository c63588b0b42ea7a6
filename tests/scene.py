"""What the tests of the loss share: a scene with three tasks, a group of two, and small tools."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from uncertainty_mtl import (
    GaussianHead,
    LaplaceHead,
    ScaledSigmoidHead,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
)
from uncertainty_mtl.forms import NAMES

KINDS = ["gaussian", "laplace", "softmax"]
HEADS = {
    "gaussian": GaussianHead,
    "laplace": LaplaceHead,
    "softmax": ScaledSoftmaxHead,
    "sigmoid": ScaledSigmoidHead,
}
C = {"gaussian": 0.5, "laplace": 1.0, "softmax": 0.5, "sigmoid": 0.5}
"""Weight times base loss at the optimum."""

PAIR = {"a": "gaussian", "b": "laplace"}

OPTIONS = [
    {},
    {"estimator": "closed_form"},
    {"constraint": "unit_sum"},
    {"estimator": "closed_form", "constraint": "unit_sum"},
    {"estimator": "closed_form", "constraint": "softmax", "temperature": 1.0},
    {"estimator": "fixed", "weights": {"a": 0.3}},
    {"priorities": {"a": 3.0}},
    *({"form": name} for name in NAMES),
]
"""The options of a loss with a task ``"a"``."""


def scene_loss() -> UncertaintyWeightedLoss:
    """Return a loss whose sigmas have fixed starts: 1, 2 and 0.5."""
    return UncertaintyWeightedLoss(
        {
            "semantic": ScaledSoftmaxHead(ignore_index=255, init_sigma=1.0),
            "instance": LaplaceHead(init_sigma=2.0),
            "depth": GaussianHead(init_sigma=0.5),
        }
    )


def scene_batch(seed: int = 0) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Return predictions, targets and masks for it."""
    generator = torch.Generator().manual_seed(seed)
    predictions = {
        "semantic": torch.randn((2, 5, 4, 4), generator=generator).requires_grad_(),
        "instance": torch.randn((2, 2, 4, 4), generator=generator).requires_grad_(),
        "depth": torch.randn((2, 1, 4, 4), generator=generator).requires_grad_(),
    }
    targets = {
        "semantic": torch.randint(5, (2, 4, 4), generator=generator),
        "instance": torch.randn((2, 2, 4, 4), generator=generator),
        "depth": torch.randn((2, 1, 4, 4), generator=generator),
    }
    masks = {"instance": torch.rand((2, 4, 4), generator=generator) < 0.5, "depth": None}
    return predictions, targets, masks


def leaf(value: float) -> Tensor:
    """Return a reduced loss that carries a gradient."""
    return torch.tensor(float(value), requires_grad=True)


def leaves(values: Iterable[float]) -> list[Tensor]:
    """Return one such loss for each value."""
    return [leaf(value) for value in values]


def numbers(values: dict[str, Tensor]) -> dict[str, float]:
    """Return 0-dim tensors as numbers, by name."""
    return {name: value.item() for name, value in values.items()}


def state_of(module: torch.nn.Module) -> dict[str, Tensor]:
    """Return a copy of a module's state."""
    return {name: value.clone() for name, value in module.state_dict().items()}


def assert_same_state(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Fail unless both hold the same tensors, bit by bit; nan equals nan."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=0, equal_nan=True)


def train(loss_fn: UncertaintyWeightedLoss, losses: Tensor, *, record: int = 1) -> Tensor:
    """Train as README does, AdamW at 1e-3, and return the weights of the last steps.

    Args:
        loss_fn: Its tasks are in the order of the columns of the losses.
        losses: One row for each step.
        record: How many steps are returned, one row for each.
    """
    network = torch.nn.Parameter(torch.zeros(losses.shape[1]))
    groups = [{"params": [network]}, *loss_fn.param_groups()]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    loss_fn.check_optimizer(optimizer)
    weights = []
    for step, row in enumerate(losses):
        result = loss_fn(row + 0 * network)
        optimizer.zero_grad()
        result.total.backward()
        optimizer.step()
        if step >= len(losses) - record:
            weights.append(torch.stack(list(loss_fn.weights().values())))
    return torch.stack(weights)


def noisy(levels: Tensor, num_steps: int) -> Tensor:
    """Return losses with a relative deviation of 0.2, as of squared errors of 50 elements each."""
    chi_square = torch.randn(num_steps, len(levels), 50).square().mean(-1)
    return levels * chi_square


class CountReads(TorchDispatchMode):
    """Counts the operations after which the host knows a value, and so had to wait for it."""

    READS = (
        "aten::_local_scalar_dense",
        "aten::equal",
        "aten::is_nonzero",
        "aten::masked_select",
        "aten::nonzero",
    )

    def __init__(self) -> None:
        super().__init__()
        self.num_reads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Count, and go on."""
        self.num_reads += func.name().split(".")[0] in self.READS
        return func(*args, **(kwargs or {}))
