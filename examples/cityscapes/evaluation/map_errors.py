"""The errors of the regressed maps, accumulated over a split."""

import torch
from torch import Tensor

Figures = dict[str, float | None]


class InstanceError:
    """Error of the predicted offsets over instance pixels."""

    def __init__(self) -> None:
        self._sums, self._count = torch.zeros(4, dtype=torch.float64), 0

    def add(self, predicted: Tensor, target: Tensor, mask: Tensor) -> None:
        """Add offsets (B, 2, H, W) and the mask (B, H, W) of instance pixels."""
        dx, dy = (predicted - target).movedim(1, 0)[:, mask].double()
        squares = dx.square() + dy.square()
        sums = [dx.abs().sum(), dy.abs().sum(), squares.sqrt().sum(), squares.sum()]
        self._sums += torch.stack(sums).cpu()
        self._count += int(mask.sum())

    def compute(self) -> Figures:
        """Return errors in pixels, None without instances.

        `instance_error_px` is the paper's: the mean of `|dx| + |dy|`. Beside it the mean of either
        component, that of the length of the error, and the root of the mean squared length.
        """
        names = ("error", "error_x", "error_y", "euclidean", "rms")
        if not self._count:
            return {f"instance_{name}_px": None for name in names}
        x, y, length, squares = (self._sums / self._count).tolist()
        values = (x + y, x, y, length, squares**0.5)
        return {f"instance_{name}_px": value for name, value in zip(names, values, strict=True)}


class DepthError:
    """Error of the predicted disparity over valid pixels."""

    def __init__(self) -> None:
        self._sum, self._squares, self._count = 0.0, 0.0, 0
        self._sum_per_metre, self._count_per_metre = 0.0, 0

    def add(
        self,
        predicted: Tensor,
        target: Tensor,
        mask: Tensor,
        disparity_at_1m: Tensor | None = None,
    ) -> None:
        """Add disparities (B, 1, H, W) and the mask (B, H, W) of valid pixels.

        `disparity_at_1m` (B,) is baseline times focal length in pixels, nan where unknown.
        """
        errors = (predicted - target).squeeze(1)
        if disparity_at_1m is not None:
            per_metre = errors / disparity_at_1m.to(errors.device).view(-1, 1, 1)
            known = per_metre[mask & ~per_metre.isnan()].double()
            self._sum_per_metre += float(known.abs().sum())
            self._count_per_metre += known.numel()
        error = errors[mask].double()
        self._sum += float(error.abs().sum())
        self._squares += float(error.square().sum())
        self._count += int(mask.sum())

    def compute(self) -> Figures:
        """Return the mean absolute and the root mean squared error in pixels.

        `depth_error_per_metre` is the mean absolute error of the inverse depth in 1/m, over the
        images whose camera is known; None without any.
        """
        count = self._count_per_metre
        per_metre = {"depth_error_per_metre": self._sum_per_metre / count if count else None}
        if not self._count:
            return {"depth_error_px": None, "depth_rms_px": None, **per_metre}
        return {
            "depth_error_px": self._sum / self._count,
            "depth_rms_px": (self._squares / self._count) ** 0.5,
            **per_metre,
        }
