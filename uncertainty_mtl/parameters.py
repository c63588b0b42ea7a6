"""How log-variances are kept, read and set, also when FSDP has sharded them."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn


class KeepsDtype(nn.Module):
    """A module whose state keeps its dtype under ``.to(dtype)``, ``.half()`` and ``.bfloat16()``.

    Near -7, bfloat16 has steps of 0.03 and would round an optimizer's updates of ``log_var`` away.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            # Not `moved.float()`, which would keep the rounding of the trip through half precision.
            return moved if moved.dtype == tensor.dtype else tensor.to(moved.device)

        return super()._apply(keep_dtype, recurse)  # type: ignore[no-untyped-call]

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        # `load_state_dict(assign=True)` takes the checkpoint's tensors, and with them their dtype.
        for name, own in (
            *self.named_parameters(recurse=False),
            *self.named_buffers(recurse=False),
        ):
            if isinstance(found := state_dict.get(prefix + name), Tensor):
                state_dict[prefix + name] = found.to(own.dtype)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def is_usable(loss: Tensor) -> Tensor:
    """Return where a base loss can set a sigma: where it is finite and above 0."""
    return torch.isfinite(loss) & (loss > 0)


def project(log_vars: list[Any], low: Any, high: Any) -> None:
    """Put parameters back within their bounds, in place, if an optimizer moved them outside.

    It changes the parameters themselves. A clamped copy has no gradient outside the bounds, so a
    parameter that has left them would never come back.

    Args:
        log_vars: The parameters.
        low: One lower bound for all, or a list with one for each.
        high: One upper bound for all, or a list with one for each.
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
    """Return the whole parameter; if FSDP has sharded it, every rank has to call this."""
    if not _is_sharded(parameter):
        return parameter
    whole: Tensor = parameter.full_tensor()  # type: ignore[attr-defined]
    return whole


def _is_sharded(parameter: Tensor) -> bool:
    # Check the usual types first, because `hasattr` on a tensor without the method is slow.
    is_plain = type(parameter) in (nn.Parameter, Tensor) or torch.compiler.is_compiling()
    return not is_plain and hasattr(parameter, "full_tensor")


CAPTURED = (
    "A training step that sets sigmas from its losses should run outside of the transforms of "
    "`torch.func`. Found one within, where only the arguments of the function can be written. Take "
    "an ordinary step first or call `loss_fn.initialize_from`, after which learned sigmas work "
    "here; or call `loss_fn.eval()`. Closed form and constraints set sigmas in every training step."
)


def write(*pairs: tuple[Tensor, Tensor]) -> None:
    """Set parameters and buffers in place to the values that they are paired with.

    Raises:
        RuntimeError: Within a transform of ``torch.func``, where they cannot be written.
    """
    try:
        with torch.no_grad():
            for tensor, value in pairs:
                tensor.copy_(_distributed(value, tensor) if _is_sharded(tensor) else value)
    except RuntimeError as error:
        # PyTorch has no class of its own for errors of transforms.
        if "transform" in str(error) or "vmap" in str(error):
            raise RuntimeError(CAPTURED) from error
        raise


def _distributed(value: Tensor, like: Tensor) -> Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor  # only where FSDP2 is used

    sharded = cast(DTensor, like)
    return distribute_tensor(value, sharded.device_mesh, sharded.placements)


class ValuesByTask(KeepsDtype):
    """A vector whose parts are saved by task, so that a checkpoint is read by name, not by order.

    It has no methods of its own, because no task could have the name of such a method. The
    functions below read and set it.

    Args:
        sizes: The length of each task's part, by the name of the module of its head.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        for task, size in sizes.items():
            self.register_buffer(task, torch.full((size,), torch.nan, dtype=torch.float32))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        for task, part in self.named_buffers():  # nan, where the checkpoint holds none
            state_dict.setdefault(prefix + task, torch.full_like(part, torch.nan))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)


def vector_of(values: ValuesByTask) -> Tensor:
    """Return the values of all tasks."""
    return torch.cat(list(values.buffers()))


def set_values(values: ValuesByTask, vector: Tensor) -> None:
    """Set the values of all tasks."""
    parts = list(values.buffers())
    write(*zip(parts, torch.split(vector, [part.numel() for part in parts]), strict=True))


def drop_saved(state_dict: dict[str, Any], name: str) -> None:
    """Remove the values of all tasks from a checkpoint, for a module that keeps none."""
    for key in [key for key in state_dict if key.startswith(f"{name}.")]:
        del state_dict[key]


def forget(values: ValuesByTask) -> None:
    """Set all values to nan."""
    for part in values.buffers():
        nn.init.constant_(part, torch.nan)
