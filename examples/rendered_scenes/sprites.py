"""Shapes that are drawn once, as maps of parts, and then looked up."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from examples.rendered_scenes.texture import TILE, noise_tile

Point = tuple[float, float]


@dataclass(frozen=True)
class Sprite:
    """A flat shape: part number (0 is a hole) and brightness, both of shape (rows, columns)."""

    part: np.ndarray
    shade: np.ndarray
    width: float
    """Metres."""
    height: float
    """Metres."""

    def parts(self, u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Part and brightness at points of the unit square, v upwards."""
        rows, columns = self.part.shape
        row = np.minimum(((1 - v) * rows).astype(np.int32), rows - 1)
        index = row * columns + np.minimum((u * columns).astype(np.int32), columns - 1)
        return self.part.ravel()[index], self.shade.ravel()[index]

    @cached_property
    def mirrored(self) -> "Sprite":
        """The shape as seen in a mirror."""
        flip = np.ascontiguousarray
        return Sprite(flip(self.part[:, ::-1]), flip(self.shade[:, ::-1]), self.width, self.height)


class Pen:
    """Draws parts in metres, x to the right and y upwards from the lower left corner.

    Args:
        width: Width of the shape in metres.
        height: Height of the shape in metres.
        scale: Cells per metre.
    """

    def __init__(self, width: float, height: float, scale: float) -> None:
        self.width, self.height, self.scale = width, height, scale
        self.image = Image.new("L", (round(width * scale), round(height * scale)))
        self.draw = ImageDraw.Draw(self.image)

    def polygon(self, part: int, *points: Point) -> None:
        """A filled polygon."""
        self.draw.polygon([self._cell(*p) for p in points], fill=part)

    def box(self, part: int, left: float, bottom: float, right: float, top: float) -> None:
        """A filled upright rectangle."""
        self.polygon(part, (left, bottom), (right, bottom), (right, top), (left, top))

    def disc(self, part: int, x: float, y: float, radius: float, ry: float | None = None) -> None:
        """A filled circle, or an ellipse with the vertical radius ``ry``."""
        ry = radius if ry is None else ry
        left, top = self._cell(x - radius, y + ry)
        right, bottom = self._cell(x + radius, y - ry)
        self.draw.ellipse((left, top, right, bottom), fill=part)

    def limb(self, part: int, width: float, *points: Point) -> None:
        """A line with round joints and ends."""
        cells = [self._cell(*p) for p in points]
        self.draw.line(cells, fill=part, width=max(1, round(width * self.scale)))
        for x, y in points:
            self.disc(part, x, y, width / 2)

    def sprite(self, *, grain: float = 0.0, roundness: float = 0.0, seed: int = 0) -> Sprite:
        """The finished shape.

        Args:
            grain: Standard deviation of the noise of the brightness.
            roundness: How much darker the right end of each row is than its left end.
            seed: Seed of the noise.
        """
        part = np.array(self.image)
        rows, columns = part.shape
        noise = noise_tile(seed)[np.arange(rows)[:, None] % TILE, np.arange(columns) % TILE]
        shade = 1 + grain * noise
        if roundness:
            solid = part > 0
            left = solid.argmax(1)[:, None]
            right = columns - 1 - solid[:, ::-1].argmax(1)[:, None]
            across = (np.arange(columns) - left) / np.maximum(right - left, 1)
            shade = shade * (1 + roundness * (0.5 - across))
        return Sprite(part, shade.astype(np.float32), self.width, self.height)

    def _cell(self, x: float, y: float) -> Point:
        return x * self.scale, (self.height - y) * self.scale


def palette(*colours: Sequence[float] | np.ndarray) -> np.ndarray:
    """Colours of the parts 1, 2, ...; part 0 is a hole and gets black."""
    return np.array([(0, 0, 0), *colours], np.float32)


def surfaces(*numbers: int) -> np.ndarray:
    """Surface numbers of the parts 1, 2, ..."""
    return np.array([0, *numbers], np.uint8)
