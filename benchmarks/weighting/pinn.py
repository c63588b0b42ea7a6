"""A physics-informed network. It learns one function by three losses, and each can reach 0."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.weighting.one_training import Errors
from benchmarks.weighting.ways import Losses


def solution(x: Tensor) -> Tensor:
    """Return u. The network is told only its equation, its ends and its value at five points."""
    return torch.sin(math.pi * x) + 0.3 * torch.sin(4 * math.pi * x)


def source(x: Tensor) -> Tensor:
    """Return -u''."""
    pi = math.pi
    return pi**2 * torch.sin(pi * x) + 0.3 * (4 * pi) ** 2 * torch.sin(4 * pi * x)


def derivative(of: Tensor, by: Tensor) -> Tensor:
    """Return a derivative that can be differentiated again."""
    (found,) = torch.autograd.grad(of.sum(), by, create_graph=True)
    return found


@dataclass(frozen=True)
class Poisson:
    """-u'' = f between -1 and 1, with losses for the residual, the boundary and the data."""

    steps: int = 3000
    name = "physics-informed network"
    likelihoods = dict.fromkeys(("residual", "boundary", "data"), "gaussian")
    epoch = 10  # there are no epochs: DWA compares means of ten steps
    learning_rate = 3e-3

    def start(self, seed: int) -> "PoissonSession":
        """Return a training that is about to start."""
        return PoissonSession(self.steps, seed)


class PoissonSession:
    """One training of the physics-informed network."""

    def __init__(self, steps: int, seed: int) -> None:
        self.steps = steps
        self.random = torch.Generator().manual_seed(seed)
        self.model = nn.Sequential(
            nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)
        )
        known = 2 * torch.rand(10, 1, generator=self.random) - 1
        self.data, self.held_out = known[:5], known[5:]

    def losses(self) -> Iterator[Losses]:
        """Yield three mean squared errors. Each step takes new random points for the residual."""
        ends = torch.tensor([[-1.0], [1.0]])
        for _ in range(self.steps):
            x = (2 * torch.rand(64, 1, generator=self.random) - 1).requires_grad_()
            slope = derivative(self.model(x), x)
            bend = derivative(slope, x)
            yield {
                "residual": (bend + source(x)).square().mean(),
                "boundary": (self.model(ends) - solution(ends)).square().mean(),
                "data": (self.model(self.data) - solution(self.data)).square().mean(),
            }

    @torch.no_grad()
    def errors(self, split: str) -> Errors:
        """Return the relative error of u: at five other points, or everywhere for the test."""
        x = self.held_out if split == "validation" else torch.linspace(-1, 1, 1001)[:, None]
        missed = self.model(x) - solution(x)
        return {"u": float(missed.norm() / solution(x).norm())}
