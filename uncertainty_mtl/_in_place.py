"""Writing over a gradient that nobody else holds."""

from torch import Tensor


def scale_(gradient: Tensor, factor: Tensor) -> Tensor:
    """Return the product, in the memory of ``gradient`` if possible."""
    try:
        # Read on a CPU only: a GPU would have to be waited for.
        if factor.device.type == "cpu" and factor.numel() == 1 and factor.item() == 1:
            return gradient
        return gradient.mul_(factor)
    except RuntimeError:
        # Gradients may come in batches (`is_grads_batched`, as TorchJD asks for them): a factor for
        # each of the batch, where there is one gradient. Nothing is written before that is seen.
        return gradient * factor
