"""Computing activations again in the backward pass instead of keeping them."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint


def recomputed(module: nn.Module, features: Tensor) -> Tensor:
    """Apply a module and keep only its input; gradients and statistics are as without this."""
    return checkpoint(
        module,
        features,
        use_reentrant=False,
        # Saving the generators makes the GPU wait, so only where random numbers are drawn.
        preserve_rng_state=any(isinstance(m, _DropoutNd) for m in module.modules()),
        context_fn=lambda: (nullcontext(), statistics_kept(module)),
    )


@contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norm see a batch a second time without counting it a second time.

    This sets the momentum to 0 rather than switching the statistics off: the layer then saves the
    same tensors as the first time, which checkpointing requires.
    """
    norms: list[Any] = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, num_batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(num_batches)
