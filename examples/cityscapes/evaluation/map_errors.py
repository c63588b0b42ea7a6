"""The errors of the regressed maps, accumulated over a split."""

import torch
from torch import Tensor

Figures = dict[str, float | None]


class InstanceError:
    """Error of the predicted offsets over instance pixels."""

    def __init__(self) -> None:
        self.sums = torch.zeros(5, dtype=torch.float64)
        """Sums over the pixels of `|dx|`, `|dy|`, the length, its square, and 1."""

    def add(self, predicted: Tensor, target: Tensor, mask: Tensor) -> None:
        """Add offsets (B, 2, H, W) and the mask (B, H, W) of instance pixels."""
        dx, dy = (predicted - target).movedim(1, 0)[:, mask].double()
        squares = dx.square() + dy.square()
        sums = [dx.abs().sum(), dy.abs().sum(), squares.sqrt().sum(), squares.sum(), mask.sum()]
        self.sums += torch.stack(sums).cpu()

    def compute(self) -> Figures:
        """Return errors in pixels, None without instances.

        `instance_error_px` is the paper's: the mean of `|dx| + |dy|`. The others are the mean of
        each component, the mean length of the error, and the root of the mean squared length.
        """
        names = ("error", "error_x", "error_y", "euclidean", "rms")
        *sums, count = self.sums.tolist()
        if not count:
            return {f"instance_{name}_px": None for name in names}
        x, y, length, squares = (each / count for each in sums)
        values = (x + y, x, y, length, squares**0.5)
        return {f"instance_{name}_px": value for name, value in zip(names, values, strict=True)}


class DepthError:
    """Error of the predicted disparity over valid pixels."""

    def __init__(self) -> None:
        self.sums = torch.zeros(5, dtype=torch.float64)
        """Sums of the error, its square, 1 and, for known cameras, of the error in 1/m and 1."""

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
        errors = (predicted - target).squeeze(1).abs()
        error = errors[mask].double()
        sums = [error.sum(), error.square().sum(), mask.sum()]
        if disparity_at_1m is None:
            disparity_at_1m = torch.full((len(mask),), torch.nan)
        per_metre = errors / disparity_at_1m.to(errors.device).view(-1, 1, 1)
        known = mask & ~per_metre.isnan()
        sums += [per_metre[known].double().sum(), known.sum()]
        self.sums += torch.stack(sums).cpu()

    def compute(self) -> Figures:
        """Return the mean absolute and the root mean squared error in pixels.

        `depth_error_per_metre` is the mean absolute error of the inverse depth in 1/m, over the
        images whose camera is known; None without any.
        """
        error, squares, count, in_metres, known = self.sums.tolist()
        per_metre = {"depth_error_per_metre": in_metres / known if known else None}
        if not count:
            return {"depth_error_px": None, "depth_rms_px": None, **per_metre}
        return {
            "depth_error_px": error / count,
            "depth_rms_px": (squares / count) ** 0.5,
            **per_metre,
        }
