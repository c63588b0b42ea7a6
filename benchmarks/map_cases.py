"""Dense maps with invalid pixels, and the ways to take a loss on them: heads and their peers."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.run_settings import Settings
from benchmarks.timing import forward_backward
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, TaskHead

VALID = 0.8
"""Share of the pixels that are labelled, about that of disparities in CityScapes."""
IGNORED = -100  # the default of `ignore_index`, in PyTorch as in this library
OURS, LOW_MEMORY = "ours", "ours, low memory"
INDEXED, WHOLE, CROSS_ENTROPY = "indexed by the mask", "whole map, no mask", "F.cross_entropy"

Shape = tuple[int, ...]
Loss = Callable[[Tensor], Tensor]
"""Takes a prediction and returns a scalar."""


@dataclass(frozen=True)
class Case:
    """One kind of loss on maps of one shape."""

    title: str
    prediction: Tensor
    """A leaf that needs a gradient."""
    losses: dict[str, Loss]
    """Candidates and their peers, by name."""
    pairs: tuple[tuple[str, str], ...]
    """Candidates with the peers that they are compared to."""

    def step(self, loss: Loss) -> Callable[[], None]:
        """Return the measured function: forward, backward, then drop the gradient."""
        return forward_backward(lambda: loss(self.prediction), [self.prediction])


def cases(settings: Settings) -> Iterator[Case]:
    """Yield every kind of loss on small and on large maps."""
    small, large = ((8, 2, 128, 256), (8, 19, 128, 256)), ((4, 1, 1024, 2048), (2, 19, 512, 1024))
    tiny = ((2, 2, 16, 32), (2, 5, 16, 32))
    for maps, logits in settings.choose((small, large), (small,), (tiny,)):
        yield regression("L1", LaplaceHead(), F.l1_loss, maps, settings.device)
        yield regression("MSE", GaussianHead(), F.mse_loss, maps, settings.device)
        yield classification(logits, settings.device)


def regression(
    name: str, head: TaskHead, plain: Callable[..., Tensor], shape: Shape, device: torch.device
) -> Case:
    """Return a case: a regression head, the loss indexed by the mask, and that of the whole map."""
    prediction = torch.randn(shape, device=device, requires_grad=True)
    target = torch.randn(shape, device=device)
    mask = torch.rand(shape, device=device) < VALID
    head.to(device)
    losses = {
        OURS: lambda p: head(p, target, mask),
        INDEXED: lambda p: plain(p[mask], target[mask]),
        WHOLE: lambda p: plain(p, target),
    }
    pairs = ((OURS, INDEXED), (OURS, WHOLE))
    return checked(Case(f"{name} {shape}", prediction, losses, pairs))


def classification(shape: Shape, device: torch.device) -> Case:
    """Return a case: the softmax head, at once and in chunks, and PyTorch's cross-entropy."""
    prediction = torch.randn(shape, device=device, requires_grad=True)
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), device=device)
    labels[torch.rand(labels.shape, device=device) >= VALID] = IGNORED
    at_once = ScaledSoftmaxHead().to(device)
    chunked = ScaledSoftmaxHead(low_memory=True).to(device)
    losses = {
        OURS: lambda p: at_once(p, labels),
        LOW_MEMORY: lambda p: chunked(p, labels),
        CROSS_ENTROPY: lambda p: F.cross_entropy(p, labels),
    }
    pairs = ((OURS, CROSS_ENTROPY), (LOW_MEMORY, CROSS_ENTROPY))
    return checked(Case(f"cross-entropy {shape}", prediction, losses, pairs))


def checked(case: Case) -> Case:
    """Return the case; raise unless what is compared has the same gradient, up to a factor.

    A new head has a sigma of 1, so its weight is a constant factor. The loss on the whole map is
    left out: it has another gradient, and is there to show what a mask costs.
    """
    directions = {}
    for name, loss in case.losses.items():
        (gradient,) = torch.autograd.grad(loss(case.prediction), case.prediction)
        directions[name] = gradient / gradient.norm()
    for name, peer in case.pairs:
        if peer != WHOLE:
            torch.testing.assert_close(directions[name], directions[peer], rtol=1e-3, atol=1e-7)
    return case
