"""Walls and fences between the sidewalk and what lies behind."""

from collections.abc import Callable

import numpy as np

from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.canvas import UP, Canvas, Paint, Parts
from examples.rendered_scenes.light import Light
from examples.rendered_scenes.sprites import palette, surfaces
from examples.rendered_scenes.texture import cell_tile, look_up, noise_tile

STONE, JOINT, COPING = 1, 2, 3
BAR, GAP, POST = 1, 2, 3
_WALL, _FENCE = surfaces(*[s.WALL] * 3), surfaces(*[s.FENCE] * 3)


def draw_wall(
    canvas: Canvas, light: Light, origin: np.ndarray, along: np.ndarray, rng: np.random.Generator
) -> None:
    """A wall of stone blocks or plain concrete, 1.1 to 3.3 m high, seen from its front."""
    height, length = float(rng.uniform(1.1, 3.3)), float(np.sqrt(along @ along))
    block, course = rng.uniform(0.5, 1.4), rng.uniform(0.22, 0.5)
    plain = rng.random() < 0.35
    offset = rng.uniform(0, 200, 2)

    def parts(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = u * np.float32(length), v * np.float32(height)
        row = (y / course).astype(np.int32)
        column = x / block + 0.5 * (row & 1)
        cell = column.astype(np.int32)
        rough = look_up(noise_tile(4), x * 12 + offset[0], y * 12 + offset[1])
        stains = look_up(noise_tile(5), x * 2 + offset[1], y * 1.2 + offset[0])
        shade = 1 + 0.1 * rough + 0.09 * stains
        if plain:  # slabs of concrete, stained from above
            part = np.full(u.shape, STONE, np.uint8)
            part[x % 2.4 < 0.05] = JOINT
            shade *= 0.82 + 0.25 * np.minimum(y, 1)
        else:
            joint = (column % 1 < 0.09) | (y / course % 1 < 0.14)
            part = np.where(joint, JOINT, STONE).astype(np.uint8)
            shade *= 0.78 + 0.44 * look_up(cell_tile(), cell + offset[0], row + offset[1])
        part[y > height - 0.14] = COPING
        return part, shade

    tone = rng.uniform(60, 190) + rng.normal(0, 14) * np.array([1.0, 0.2, -0.8])
    stone = tone + rng.normal(0, 6, 3) + (rng.random() < 0.25) * np.array([30.0, -10, -25])
    colours = palette(stone, stone * rng.uniform(0.6, 1.15), stone * rng.uniform(0.8, 1.25))
    _put(canvas, light, (origin, along, height), parts, colours, _WALL)


def draw_fence(
    canvas: Canvas, light: Light, origin: np.ndarray, along: np.ndarray, rng: np.random.Generator
) -> None:
    """Pickets, rails or wire mesh between posts.

    What shows through between the bars is the fence's, as in polygons drawn by hand.
    """
    height, length = float(rng.uniform(0.9, 2.5)), float(np.sqrt(along @ along))
    style = (_pickets, _rails, _mesh)[rng.integers(3)](rng, height)
    field = float(rng.uniform(1.8, 2.8))

    def parts(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = u * np.float32(length), v * np.float32(height)
        part = np.where(style(x, y), BAR, GAP).astype(np.uint8)
        part[x % field < 0.13] = POST
        rough = look_up(noise_tile(4), x * 11, y * 11)
        return part, np.where(part == GAP, 0.9 + 0.22 * rough, 1 + 0.06 * rough)

    bar = rng.uniform(35, 215) + rng.normal(0, 20) * np.array([1.0, 0.4, -0.5])
    bar = bar + rng.normal(0, 8, 3)
    gap = rng.uniform(25, 110) + rng.normal(0, 12) * np.array([0.2, 1.0, -0.4])
    colours = palette(bar, gap, bar * rng.uniform(0.7, 1.2))
    _put(canvas, light, (origin, along, height), parts, colours, _FENCE)


_Bars = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _pickets(rng: np.random.Generator, height: float) -> _Bars:
    pitch, share = rng.uniform(0.16, 0.34), rng.uniform(0.4, 0.72)
    return lambda x, y: (
        (x / pitch % 1 < share) | (np.abs(y - 0.2) < 0.06) | (np.abs(y - 0.8 * height) < 0.06)
    )


def _rails(rng: np.random.Generator, height: float) -> _Bars:
    pitch = height / rng.integers(2, 5)
    return lambda x, y: y / pitch % 1 > 0.58


def _mesh(rng: np.random.Generator, height: float) -> _Bars:
    pitch = rng.uniform(0.18, 0.4)
    return lambda x, y: ((x + y) / pitch % 1 < 0.2) | ((x - y) / pitch % 1 < 0.2)


def _put(
    canvas: Canvas,
    light: Light,
    place: tuple[np.ndarray, np.ndarray, float],
    parts: Parts,
    colours: np.ndarray,
    kinds: np.ndarray,
) -> None:
    origin, along, height = place
    lit = np.clip(colours, 8, 240) * light.on(along, UP)
    canvas.panel(origin, along, UP * height, parts, Paint(lit, kinds), one_sided=True)
