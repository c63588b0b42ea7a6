"""Dense maps with invalid pixels, and the ways to take a loss on them: heads and their peers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.run_settings import Settings
from benchmarks.timing import forward_backward
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead

VALID = 0.8
"""Share of the pixels that are labelled, about that of disparities in CityScapes."""
IGNORE_INDEX = 255
OURS, EXACT, LOW_MEMORY = "ours", "ours, exact", "ours, low memory"
INDEXED, WHOLE = "indexed by the mask", "whole map, no mask"
WEIGHTED, INDEXED_WEIGHTS = "ours, weights per element", "weights, indexed by the mask"
CROSS_ENTROPY, TEMPERED = "F.cross_entropy", "F.cross_entropy(logits / T)"

Loss = Callable[[Tensor], Tensor]
"""From a prediction to a scalar."""


@dataclass(frozen=True)
class Case:
    """One kind of loss on maps of one shape."""

    title: str
    prediction: Tensor
    """A leaf that wants a gradient."""
    losses: dict[str, Loss]
    """The candidates, by name."""
    pairs: tuple[tuple[str, str], ...]
    """Which candidate is compared with which."""

    def step(self, loss: Loss) -> Callable[[], None]:
        """Return the timed function: forward, backward, then drop the gradient."""
        return forward_backward(lambda: loss(self.prediction), [self.prediction])


def cases(settings: Settings) -> Iterator[Case]:
    """Yield every kind of loss on small and on large maps."""
    small, large = ((8, 2, 128, 256), (8, 19, 128, 256)), ((4, 1, 1024, 2048), (2, 19, 512, 1024))
    tiny = ((2, 2, 16, 32), (2, 5, 16, 32))
    generator = torch.Generator().manual_seed(settings.seed)
    for maps, logits in settings.choose((small, large), (small,), (tiny,)):
        yield regression("L1", maps, settings.device, generator)
        yield regression("MSE", maps, settings.device, generator)
        yield classification(logits, settings.device, generator)


def regression(
    kind: str, shape: tuple[int, ...], device: torch.device, generator: torch.Generator
) -> Case:
    """Return a head for regression, indexing by the mask, and the loss on the whole map."""
    prediction = torch.randn(shape, generator=generator).to(device).requires_grad_()
    target = torch.randn(shape, generator=generator).to(device)
    mask = (torch.rand(shape, generator=generator) < VALID).to(device)
    head = {"L1": LaplaceHead, "MSE": GaussianHead}[kind]().to(device)
    plain = {"L1": F.l1_loss, "MSE": F.mse_loss}[kind]
    weights = (0.5 + torch.rand(shape, generator=generator)).to(device) * mask

    def indexed_weights(p: Tensor) -> Tensor:
        used = weights[mask]
        return (plain(p[mask], target[mask], reduction="none") * used).sum() / used.sum()

    losses = {
        OURS: lambda p: head(p, target, mask),
        INDEXED: lambda p: plain(p[mask], target[mask]),
        WHOLE: lambda p: plain(p, target),
        WEIGHTED: lambda p: head(p, target, weights),
        INDEXED_WEIGHTS: indexed_weights,
    }
    pairs = ((OURS, INDEXED), (OURS, WHOLE), (WEIGHTED, INDEXED_WEIGHTS))
    return checked(Case(f"{kind} {shape}", prediction, losses, pairs))


def classification(
    shape: tuple[int, ...], device: torch.device, generator: torch.Generator
) -> Case:
    """Return the forms of the softmax head, and two written with PyTorch's cross-entropy."""
    prediction = torch.randn(shape, generator=generator).to(device).requires_grad_()
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    labels[torch.rand(labels.shape, generator=generator) >= VALID] = IGNORE_INDEX
    labels = labels.to(device)
    paper = ScaledSoftmaxHead(ignore_index=IGNORE_INDEX).to(device)
    exact = ScaledSoftmaxHead(ignore_index=IGNORE_INDEX, exact=True).to(device)
    chunked = ScaledSoftmaxHead(ignore_index=IGNORE_INDEX, low_memory=True).to(device)
    temperature = torch.ones(1, device=device, requires_grad=True)

    def cross_entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)

    losses = {
        OURS: lambda p: paper(p, labels),
        EXACT: lambda p: exact(p, labels),
        LOW_MEMORY: lambda p: chunked(p, labels),
        CROSS_ENTROPY: cross_entropy,
        TEMPERED: lambda p: cross_entropy(p / temperature),
    }
    pairs = ((OURS, CROSS_ENTROPY), (LOW_MEMORY, CROSS_ENTROPY), (EXACT, TEMPERED))
    return checked(Case(f"cross-entropy {shape}", prediction, losses, pairs))


def checked(case: Case) -> Case:
    """Return the case; raise unless what is compared has one gradient, up to a factor.

    Two losses that do not compute the same have no ratio. A head by itself starts at sigma 1: its
    weight is a constant. The loss on the whole map is another one: it tells what a mask costs.
    """
    directions = {}
    for name in case.losses:
        (gradient,) = torch.autograd.grad(case.losses[name](case.prediction), case.prediction)
        directions[name] = gradient / gradient.norm()
    for name, peer in case.pairs:
        if peer != WHOLE:
            torch.testing.assert_close(directions[name], directions[peer], rtol=1e-3, atol=1e-7)
    return case
