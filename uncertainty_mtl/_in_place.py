"""Writing over a gradient that nobody else holds."""

from torch import Tensor


def scale_(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return the product, in the memory of ``gradient`` if possible."""
    try:
        return gradient.mul_(factor)
    except RuntimeError:
        # Gradients may come in batches (`is_grads_batched`, as TorchJD asks for them): a factor for
        # each of the batch, where there is one gradient. Nothing is written before that is seen.
        return gradient * factor
