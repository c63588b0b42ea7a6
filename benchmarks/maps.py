"""Dense maps with invalid pixels, and the ways to take a loss on them: heads and their peers."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead

VALID = 0.8
"""Share of the pixels that are labelled, about that of disparities in CityScapes."""
CUT = -0.8416
"""What that share of a normal distribution is above."""
IGNORE_INDEX = 255
INSIDE, AS_BYTES = "ours, mask made inside", "ours, mask as bytes"
"""Ours, compiled with more of what surrounds it: see :func:`regression`."""
CHANNELS_LAST = "cross-entropy, channels last"
"""Of logits that lie in memory as a network in `channels_last`, such as our trainer's, has them."""

Loss = Callable[[Tensor], Tensor]
"""From a prediction to a scalar."""


@dataclass(frozen=True)
class Case:
    """One kind of loss on maps of one shape."""

    kind: str
    """`L1`, `MSE`, `cross-entropy` or `CHANNELS_LAST`."""
    shape: tuple[int, ...]
    prediction: Tensor
    """A leaf that wants a gradient."""
    losses: dict[str, Loss]
    """The candidates, by name."""
    compiled_only: dict[str, Loss] = field(default_factory=dict)
    """Candidates that are something else only to a compiler."""

    @property
    def title(self) -> str:
        """Kind and shape."""
        return f"{self.kind} {self.shape}"


def regression(
    kind: str, shape: tuple[int, ...], device: torch.device, generator: torch.Generator
) -> Case:
    """Return a head for regression, the loss on the whole map, and indexing by the mask.

    What PyTorch compiles for a CPU may load a bool mask element by element: with g++ 12 to 14 it
    does, with clang 14 not. With neither if the mask is made from the target within what is
    compiled, or comes as bytes.
    """
    prediction = torch.randn(shape, generator=generator).to(device).requires_grad_()
    target = torch.randn(shape, generator=generator).to(device)
    mask = target > CUT
    as_bytes = mask.view(torch.uint8)
    head = {"L1": LaplaceHead, "MSE": GaussianHead}[kind]().to(device)
    plain = {"L1": F.l1_loss, "MSE": F.mse_loss}[kind]
    return Case(
        kind,
        shape,
        prediction,
        {
            "ours": lambda p: head(p, target, mask),
            "whole map": lambda p: plain(p, target),
            "indexed": lambda p: plain(p[mask], target[mask]),
        },
        {
            INSIDE: lambda p: head(p, target, target > CUT),
            AS_BYTES: lambda p: head(p, target, as_bytes.to(torch.int32) != 0),
        },
    )


def classification(
    kind: str, shape: tuple[int, ...], device: torch.device, generator: torch.Generator
) -> Case:
    """Return both forms of the softmax head, cross-entropy, and the exact form written out."""
    prediction = torch.randn(shape, generator=generator).to(device)
    if kind == CHANNELS_LAST:
        prediction = prediction.to(memory_format=torch.channels_last)
    prediction.requires_grad_()
    labels = torch.randint(shape[1], (shape[0], *shape[2:]), generator=generator)
    ignored = torch.rand(labels.shape, generator=generator) >= VALID
    labels = labels.masked_fill_(ignored, IGNORE_INDEX).to(device)
    paper = ScaledSoftmaxHead(ignore_index=IGNORE_INDEX).to(device)
    exact = ScaledSoftmaxHead(ignore_index=IGNORE_INDEX, exact=True).to(device)
    temperature = torch.ones(1, device=device, requires_grad=True)

    def cross_entropy(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)

    return Case(
        kind,
        shape,
        prediction,
        {
            "ours": lambda p: paper(p, labels),
            "ours, exact": lambda p: exact(p, labels),
            "F.cross_entropy": cross_entropy,
            "F.cross_entropy(logits / T)": lambda p: cross_entropy(p / temperature),
        },
    )


def check_they_agree(case: Case, peer: str) -> None:
    """Raise unless all valid candidates have the gradient of one, up to a factor.

    Two losses that do not compute the same have no ratio. At the start, sigma is 1: the weights
    differ by a constant, and the penalties are 0.
    """
    losses = case.losses | case.compiled_only

    def direction(name: str) -> Tensor:
        (gradient,) = torch.autograd.grad(losses[name](case.prediction), case.prediction)
        return gradient / gradient.norm()

    expected = direction(peer)
    for name in losses:
        if name != "whole map":
            torch.testing.assert_close(direction(name), expected, rtol=1e-3, atol=1e-7)


def step(loss: Loss, prediction: Tensor) -> Callable[[], None]:
    """Return what is measured: forward, backward, and dropping the prediction's gradient."""

    def forward_backward() -> None:
        loss(prediction).backward()
        prediction.grad = None

    return forward_backward
