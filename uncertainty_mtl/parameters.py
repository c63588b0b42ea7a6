"""How log-variances are kept, read and set, wherever they are."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn


class KeepsDtype(nn.Module):
    """A module whose state keeps its dtype under ``.to(dtype)``, ``.half()`` and ``.bfloat16()``.

    Near -7 the steps of bfloat16 are 0.03: an optimizer's updates of a log-variance would vanish.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            # Not `moved.float()`, which would keep the rounding of the trip through half precision.
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]


def is_usable(loss: Tensor) -> Tensor:
    """Return where a base loss can set a sigma: where it is finite and above 0."""
    return torch.isfinite(loss) & (loss > 0)


def project(log_vars: list[Any], low: Any, high: Any) -> None:
    """Put parameters that an optimizer moved out of their bounds back, in place.

    The parameters themselves, not clamped copies: a clamp has no gradient outside of its bounds, so
    a parameter that was thrown out would never come back.

    Args:
        log_vars: The parameters.
        low: One lower bound for all, or a list with one for each.
        high: The upper bounds likewise.
    """
    with torch.no_grad():
        if not torch.compiler.is_compiling():
            try:
                torch._foreach_clamp_min_(log_vars, low)
                torch._foreach_clamp_max_(log_vars, high)
            except RuntimeError:  # `vmap` knows operations on single tensors only.
                pass
            else:
                return
        for i, log_var in enumerate(log_vars):
            bounds = (bound[i] if isinstance(bound, list) else bound for bound in (low, high))
            log_var.copy_(log_var.clamp(*bounds))


def gathered(parameter: Tensor) -> Tensor:
    """Return a parameter; one that FSDP has sharded is gathered, so every rank has to ask."""
    if not _is_sharded(parameter):
        return parameter
    whole: Tensor = parameter.full_tensor()  # type: ignore[attr-defined]
    return whole


def _is_sharded(parameter: Tensor) -> bool:
    # The usual types first: asking a tensor for a method that it lacks takes long.
    is_plain = type(parameter) in (nn.Parameter, Tensor) or torch.compiler.is_compiling()
    return not is_plain and hasattr(parameter, "full_tensor")


CAPTURED = (
    "A training step that sets sigmas from its losses should run outside of the transforms of "
    "`torch.func`. Found one within, where a tensor that the function has not been given cannot be "
    "written. Take an ordinary step first or call `loss_fn.initialize_from`, after which learned "
    "sigmas work here; or call `loss_fn.eval()`. Closed form and constraints set sigmas in every "
    "training step."
)


def write(*pairs: tuple[Tensor, Tensor]) -> None:
    """Set parameters and buffers, each paired with its value, in place; sharded ones on all ranks.

    Raises:
        RuntimeError: Within a transform of ``torch.func``, where they cannot be written.
    """
    try:
        with torch.no_grad():
            for tensor, value in pairs:
                tensor.copy_(_distributed(value, tensor) if _is_sharded(tensor) else value)
    except RuntimeError as error:
        raise RuntimeError(CAPTURED) from error


def _distributed(value: Tensor, like: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor  # only where FSDP2 is used

    sharded = cast(DTensor, like)
    return distribute_tensor(value, sharded.device_mesh, sharded.placements)
