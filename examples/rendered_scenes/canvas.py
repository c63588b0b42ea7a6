"""The frame buffer: flat panels in space are drawn into it, the nearest one stays."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from examples.rendered_scenes.camera import Camera

Parts: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Takes u and v in [0, 1], shape (n,), to part numbers and brightness, shape (n,)."""

UP = np.array([0.0, -1.0, 0.0])

NEAR = 0.4
"""Nothing nearer than this is drawn, in metres."""

_CORNERS = np.array([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
"""(u, v, 1) of a panel's corners, as columns."""


@dataclass(frozen=True)
class Paint:
    """What the parts of a panel look like and what they are; part 0 is a hole.

    Args:
        palette: Colour of each part, 0..255, shape (parts, 3).
        surface: Surface number of each part, shape (parts,).
    """

    palette: np.ndarray
    surface: np.ndarray


class Canvas:
    """Colour, surface number and inverse depth of a grid of samples twice as fine as the image.

    Row and column 2k + 1 of the grid are at the centre of pixel k, so that labels and depths are
    those of pixel centres, while colour is averaged over the samples around it.

    Args:
        camera: Where the picture is taken from.
    """

    def __init__(self, camera: Camera) -> None:
        height, width = camera.size
        self.camera = camera
        self.shape = (2 * height + 1, 2 * width + 1)
        self.row = ((np.arange(self.shape[0]) - 1) / 2).astype(np.float32)
        self.column = ((np.arange(self.shape[1]) - 1) / 2).astype(np.float32)
        self.rays = camera.rays
        self._axes, self._centre = camera.axes, camera.centre
        self._sample = np.arange(self.shape[0] * self.shape[1], dtype=np.int32).reshape(self.shape)
        # A sample holds one number that stands for a part of a paint, 0 while it is empty: colour
        # and surface are looked up once at the end, not whenever something is drawn over.
        self._entry = np.zeros(self._sample.size, np.uint16)
        self._shade = np.ones(self._sample.size, np.float32)
        self._inverse_depth = np.zeros(self._sample.size, np.float32)
        self._depth_grid = self._inverse_depth.reshape(self.shape)
        self._palettes = [np.zeros((1, 3))]
        self._surfaces = [np.zeros(1, np.uint8)]
        self._entries = 1

    def panel(
        self,
        origin: np.ndarray,
        edge_u: np.ndarray,
        edge_v: np.ndarray,
        parts: Parts,
        paint: Paint,
        *,
        one_sided: bool = False,
    ) -> None:
        """Draw the parallelogram ``origin + u * edge_u + v * edge_v`` where it is the nearest.

        With ``one_sided`` it is seen only from where ``edge_u`` points right and ``edge_v`` up.
        """
        frame = self._frame(origin, edge_u, edge_v, one_sided=one_sided)
        if frame is None:
            return
        window, (u, v, w) = frame
        inside = (w > self._depth_grid[window]) & (w < 1 / NEAR)
        inside &= (u >= 0) & (v >= 0)
        inside &= (u <= w) & (v <= w)
        sample = self._sample[window][inside]
        if sample.size:
            w = w[inside]
            part, shade = parts(u[inside] / w, v[inside] / w)
            self.put(sample, w, part, shade, paint)

    def put(
        self,
        sample: np.ndarray,
        inverse_depth: np.ndarray | float,
        part: np.ndarray,
        shade: np.ndarray,
        paint: Paint,
    ) -> None:
        """Write samples, numbered row by row, leaving out the holes."""
        entry = part + np.uint16(self._entries - 1)
        self._palettes.append(paint.palette[1:])
        self._surfaces.append(paint.surface[1:])
        self._entries += len(paint.palette) - 1
        if not part.all():
            solid = part > 0
            sample, entry, shade = sample[solid], entry[solid], shade[solid]
            inverse_depth = np.broadcast_to(inverse_depth, part.shape)[solid]
        self._entry[sample] = entry
        self._shade[sample] = shade
        self._inverse_depth[sample] = inverse_depth

    def darken(
        self,
        shadows: list[tuple[np.ndarray, np.ndarray, np.ndarray]],
        strength: float,
        surfaces: tuple[int, ...],
    ) -> None:
        """Lay soft shadows on surfaces of some numbers.

        Args:
            shadows: Corner and two edges of parallelograms; a shadow is the ellipse inside.
            strength: How much darker it is in the middle, 0..1.
            surfaces: On what the shadows fall.
        """
        falls_on = np.isin(np.concatenate(self._surfaces), surfaces)
        for shadow in shadows:
            frame = self._frame(*shadow)
            if frame is None:
                continue
            window, (u, v, w) = frame
            sample = self._sample[window]
            inside = (u >= 0) & (v >= 0) & (u <= w) & (v <= w) & (w > 0)
            inside &= falls_on[self._entry[sample]]
            sample = sample[inside]
            if sample.size:
                w = w[inside]
                du, dv = 2 * u[inside] / w - 1, 2 * v[inside] / w - 1
                dark = np.clip(2.2 * (1 - du * du - dv * dv), 0, 1) * np.float32(strength)
                self._shade[sample] *= 1 - dark

    def uncovered(self) -> np.ndarray:
        """The samples that nothing covers yet, in rising order."""
        return np.flatnonzero(self._entry == 0)

    def at_pixels(self) -> tuple[np.ndarray, np.ndarray]:
        """Surface number (uint8) and inverse depth (1/m, float32) of pixel centres, (H, W)."""
        surface = np.concatenate(self._surfaces)[self._entry.reshape(self.shape)[1::2, 1::2]]
        return surface, self._depth_grid[1::2, 1::2].copy()

    def colours(self) -> np.ndarray:
        """Red, green and blue of pixels, averaged over the samples, float32, shape (3, H, W)."""
        planes = []
        for table in np.concatenate(self._palettes).astype(np.float32).T:
            fine = (table.take(self._entry) * self._shade).reshape(self.shape)
            # Weights 1 2 1 each way: a pixel blends into its neighbours as behind a real lens.
            rows = fine[:-1:2] + fine[2::2] + 2 * fine[1::2]
            planes.append(rows[:, :-1:2] + rows[:, 2::2] + 2 * rows[:, 1::2])
        return np.stack(planes) * np.float32(1 / 16)

    def _frame(
        self,
        origin: np.ndarray,
        edge_u: np.ndarray,
        edge_v: np.ndarray,
        *,
        one_sided: bool = False,
    ) -> tuple[tuple[slice, slice], list[np.ndarray]] | None:
        """The part of the grid that may see a panel, and u/t, v/t and 1/t there, t the depth."""
        corner = origin - self._centre
        u, v, c = edge_u.tolist(), edge_v.tolist(), corner.tolist()
        by_c = cross(u, v)
        volume = by_c[0] * c[0] + by_c[1] * c[1] + by_c[2] * c[2]
        if abs(volume) < 1e-9 or (one_sided and volume > 0):
            return None
        window = self._window(np.array([u, v, c]).T @ _CORNERS)
        if window is None:
            return None
        # A point of the panel at depth t is t * ray = [u v c] @ (u, v, 1): the inverse of that
        # matrix, whose rows are cross products, takes a ray to (u, v, 1) / t. So all three are
        # affine in column and row.
        inverse = np.array([cross(v, c), cross(c, u), by_c]) / volume
        affine = (inverse @ self.rays).astype(np.float32)
        x, y = self.column[window[1]], self.row[window[0], None]
        return window, [(a[0] * x + a[2]) + a[1] * y for a in affine]

    def _window(self, corners: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns of the grid around four points, None if that is nothing."""
        x, y, depth = self._axes @ corners
        rows, columns = self.shape
        if depth.max() <= NEAR:
            return None
        if depth.min() <= NEAR:
            return slice(0, rows), slice(0, columns)
        column = (2 * (self.camera.u0 + self.camera.fx * x / depth) + 1).tolist()
        row = (2 * (self.camera.v0 + self.camera.fy * y / depth) + 1).tolist()
        left, right = max(int(min(column)), 0), min(int(max(column)) + 2, columns)
        top, bottom = max(int(min(row)), 0), min(int(max(row)) + 2, rows)
        if left >= right or top >= bottom:
            return None
        return slice(top, bottom), slice(left, right)


def cross(a: list[float], b: list[float]) -> list[float]:
    """Cross product of two vectors; numpy's takes longer to start than this to finish."""
    return [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]]
