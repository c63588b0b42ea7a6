"""What lamps do after sunset: pools of light, the beam of one's own headlights, halos."""

from dataclasses import dataclass

import numpy as np

from examples.rendered_scenes.camera import Camera
from examples.rendered_scenes.light import Light
from examples.rendered_scenes.street import Street

_WARM = np.array([1.08, 0.98, 0.78], np.float32)
_BRIGHTEST_BY_DAY = 300.0


@dataclass(frozen=True)
class View:
    """The point in the world that every pixel shows.

    Args:
        camera: Where the picture is taken from.
        inverse_depth: In 1/m, shape (H, W); 0 in the sky.
    """

    camera: Camera
    inverse_depth: np.ndarray

    def points(self) -> np.ndarray:
        """World coordinates in metres, float32, shape (3, H, W); far away in the sky."""
        height, width = self.inverse_depth.shape
        depth = 1 / np.maximum(self.inverse_depth, 1e-3)
        a = self.camera.rays.astype(np.float32)
        column = np.arange(width, dtype=np.float32)
        row = np.arange(height, dtype=np.float32)[:, None]
        rays = np.stack([(k[0] * column + k[2]) + k[1] * row for k in a])
        return rays * depth + self.camera.centre.astype(np.float32)[:, None, None]


def illuminate(
    colour: np.ndarray, view: View, light: Light, street: Street, lamps: list[np.ndarray]
) -> np.ndarray:
    """Darken the picture away from the lamps, and lay halos around them.

    Args:
        colour: The scene in full light, lamps brighter than that, shape (3, H, W).
        view: Where the points of the picture are.
        light: Says how dark it is.
        street: Lamps hang above its middle.
        lamps: Other lamps, in world coordinates.
    """
    points = view.points()
    # Those over the street are out of sight more often than not; without them it ends in the dark.
    hanging = [street.at(0.5 * (street.left + street.right), z) - [0, 7.0, 0] for z in _HANGING]
    gained = _own_beam(view, points)
    for lamp in (*lamps, *hanging):
        away = points - lamp.astype(np.float32)[:, None, None]
        gained += 1.5 / (1 + (away * away).sum(0) / 20)
    level = light.dark + (1 - light.dark) * np.minimum(0.85 * gained, 0.95)
    level[view.inverse_depth == 0] = 1
    sources = np.clip(colour - _BRIGHTEST_BY_DAY, 0, 1500) * np.float32(light.dark)
    radius = max(1, colour.shape[1] // 40)
    halos = blur(blur(sources, radius), radius) + 0.5 * blur(sources, 3 * radius)
    # What shines itself gains nothing from the lamps around it.
    shines = np.clip((colour.max(0) - _BRIGHTEST_BY_DAY) / 150, 0, 1)
    lit = colour * (level + shines * (light.dark - level))
    # Lamplight is warm, what little is left of the day is not.
    warmth = np.clip(gained, 0, 1) * np.float32(0.8)
    return lit * (1 + warmth * (_WARM - 1)[:, None, None]) + np.float32(1.5) * halos


_HANGING = (-4.0, 24.0, 52.0, 80.0)


def _own_beam(view: View, points: np.ndarray) -> np.ndarray:
    forward = view.camera.axes[2]
    right = np.array([forward[2], 0.0, -forward[0]])
    ahead = np.maximum(np.tensordot(forward, points, 1), 0.1)
    aside = np.tensordot(right, points, 1) / ahead
    above = np.clip(-points[1] - 0.8, 0, None) / ahead
    return 1.3 * np.exp(-((aside / 0.45) ** 2) - (above / 0.12) ** 2) / (1 + (ahead / 18) ** 2)


def blur(planes: np.ndarray, radius: int) -> np.ndarray:
    """Mean over squares of side ``2 * radius + 1``; beyond the border is black."""
    for axis in (1, 2):
        width = [(0, 0)] * 3
        width[axis] = (radius + 1, radius)
        total = np.cumsum(np.pad(planes, width), axis=axis, dtype=np.float32)
        high, low = [slice(None)] * 3, [slice(None)] * 3
        high[axis], low[axis] = slice(2 * radius + 1, None), slice(None, -2 * radius - 1)
        planes = (total[tuple(high)] - total[tuple(low)]) / np.float32(2 * radius + 1)
    return planes
