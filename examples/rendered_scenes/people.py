"""Shapes of people, bicycles and people on bicycles."""

from functools import cache

import numpy as np

from examples.rendered_scenes.sprites import Pen, Sprite, palette

SKIN, HAIR, TOP, TROUSERS, SHOES, BAG, FRAME, TYRE, SPOKES, REAR_LIGHT = range(1, 11)
PERSON_PARTS = (SKIN, HAIR, TOP, TROUSERS, SHOES, BAG)
CYCLE_PARTS = (FRAME, TYRE, SPOKES, REAR_LIGHT)
NUM_PARTS = 11
"""Parts 0 (a hole) to 10 (the rear light)."""

STRIDES = 6
"""Number of shapes that `walker` knows."""

_SCALE = 130.0


@cache
def walker(stride: int) -> Sprite:
    """A person on foot, 1.8 m tall: strides 0..3 walk, 4 and 5 stand facing the camera."""
    pen = Pen(1.0, 1.8, _SCALE)
    if stride < 4:
        _walk(pen, step=(0.12, 0.26, 0.34, 0.2)[stride], bag=stride % 2 == 1)
    else:
        _stand(pen, skirt=stride == 5)
    return pen.sprite(grain=0.07, roundness=0.45, seed=10 + stride)


def _walk(pen: Pen, step: float, *, bag: bool) -> None:
    x = 0.5
    pen.limb(TOP, 0.12, (x, 1.38), (x + step * 0.7, 1.08), (x + step * 0.95, 0.92))
    pen.limb(TROUSERS, 0.19, (x, 0.86), (x - step * 0.45, 0.5), (x - step * 1.0, 0.12))
    pen.limb(TROUSERS, 0.2, (x, 0.86), (x + step * 0.6, 0.5), (x + step * 0.8, 0.1))
    pen.limb(SHOES, 0.1, (x - step, 0.05), (x - step + 0.12, 0.05))
    pen.limb(SHOES, 0.1, (x + step * 0.8, 0.05), (x + step * 0.8 + 0.16, 0.05))
    if bag:
        pen.box(BAG, x - 0.34, 1.0, x - 0.08, 1.42)
    pen.polygon(
        TOP, (x - 0.18, 0.8), (x + 0.18, 0.8), (x + 0.2, 1.2), (x + 0.13, 1.5), (x - 0.15, 1.5),
        (x - 0.21, 1.25),
    )  # fmt: skip
    pen.limb(TOP, 0.12, (x - 0.03, 1.4), (x - step * 0.7, 1.1), (x - step * 0.6, 0.85))
    pen.disc(SKIN, x - step * 0.6, 0.82, 0.055)
    _head(pen, x + 0.03)


def _stand(pen: Pen, *, skirt: bool) -> None:
    x = 0.5
    pen.limb(TROUSERS, 0.19, (x - 0.1, 0.85), (x - 0.12, 0.08))
    pen.limb(TROUSERS, 0.19, (x + 0.1, 0.85), (x + 0.12, 0.08))
    pen.limb(SHOES, 0.12, (x - 0.15, 0.06), (x - 0.1, 0.06))
    pen.limb(SHOES, 0.12, (x + 0.1, 0.06), (x + 0.15, 0.06))
    pen.limb(TOP, 0.12, (x - 0.2, 1.4), (x - 0.3, 1.1), (x - 0.27, 0.82))
    pen.limb(TOP, 0.12, (x + 0.2, 1.4), (x + 0.3, 1.1), (x + 0.27, 0.82))
    pen.disc(SKIN, x - 0.27, 0.8, 0.05)
    pen.disc(SKIN, x + 0.27, 0.8, 0.05)
    pen.polygon(
        TOP, (x - 0.19, 0.8), (x + 0.19, 0.8), (x + 0.25, 1.45), (x, 1.53), (x - 0.25, 1.45)
    )
    if skirt:
        pen.polygon(TOP, (x - 0.3, 0.5), (x + 0.3, 0.5), (x + 0.17, 1.0), (x - 0.17, 1.0))
    _head(pen, x)


def _head(pen: Pen, x: float, y: float = 1.65) -> None:
    pen.limb(SKIN, 0.1, (x, y - 0.17), (x, y - 0.05))
    pen.disc(SKIN, x, y, 0.11, 0.14)
    pen.polygon(
        HAIR, (x - 0.13, y - 0.04), (x - 0.12, y + 0.1), (x, y + 0.15), (x + 0.12, y + 0.09),
        (x + 0.09, y + 0.03), (x - 0.04, y + 0.03),
    )  # fmt: skip


@cache
def cycle_from_side(*, ridden: bool) -> Sprite:
    """A bicycle that points right, 1.75 m long, with its rider if ``ridden``."""
    pen = Pen(1.76, 1.86 if ridden else 1.08, _SCALE)
    for x in (0.36, 1.4):
        pen.disc(TYRE, x, 0.355, 0.35)
        # Label polygons fill the wheels, so what shows between the spokes is the bicycle's too.
        pen.disc(SPOKES, x, 0.355, 0.265)
        for angle in np.arange(0, np.pi, np.pi / 4):
            dx, dy = 0.27 * np.cos(angle), 0.27 * np.sin(angle)
            pen.limb(TYRE, 0.02, (x - dx, 0.355 - dy), (x + dx, 0.355 + dy))
    bracket, saddle, head = (0.82, 0.33), (0.66, 0.93), (1.24, 0.9)
    far_leg, near_leg = ((0.98, 0.62), (0.78, 0.2)), ((1.05, 0.72), (0.92, 0.42))
    if ridden:
        pen.limb(TROUSERS, 0.16, (0.66, 1.0), *far_leg)
        pen.limb(SHOES, 0.09, far_leg[1], (far_leg[1][0] + 0.12, far_leg[1][1]))
    pen.limb(FRAME, 0.075, (0.36, 0.355), bracket, head, (0.7, 0.8), (0.36, 0.355))
    pen.limb(FRAME, 0.075, bracket, saddle)
    pen.limb(FRAME, 0.075, (1.4, 0.355), head, (1.2, 1.02), (1.32, 1.03))
    pen.limb(TYRE, 0.1, (0.56, 0.96), (0.76, 0.95))
    if ridden:
        pen.limb(TROUSERS, 0.19, (0.66, 1.02), *near_leg)
        pen.limb(SHOES, 0.1, near_leg[1], (near_leg[1][0] + 0.13, near_leg[1][1]))
        pen.polygon(TOP, (0.52, 0.95), (0.8, 0.98), (1.02, 1.38), (0.86, 1.56), (0.68, 1.44))
        pen.limb(TOP, 0.12, (0.93, 1.42), (1.08, 1.2), (1.22, 1.08))
        pen.disc(SKIN, 1.24, 1.07, 0.06)
        _head(pen, 1.0, 1.69)
    return pen.sprite(grain=0.07, roundness=0.3, seed=20)


@cache
def cycle_from_end(*, ridden: bool, rear: bool) -> Sprite:
    """A bicycle seen along its length, with its rider if ``ridden``."""
    pen = Pen(0.8, 1.86 if ridden else 1.1, _SCALE)
    x = 0.4
    pen.limb(TYRE, 0.1, (x, 0.06), (x, 0.66))
    pen.limb(FRAME, 0.09, (x, 0.6), (x, 1.0))
    pen.limb(FRAME, 0.07, (x - 0.27, 1.02), (x + 0.27, 1.02))
    pen.limb(FRAME, 0.08, (x - 0.14, 0.3), (x + 0.14, 0.36))
    if ridden:
        pen.limb(TROUSERS, 0.16, (x - 0.1, 0.95), (x - 0.17, 0.62), (x - 0.14, 0.3))
        pen.limb(TROUSERS, 0.16, (x + 0.1, 0.95), (x + 0.18, 0.72), (x + 0.15, 0.42))
        pen.limb(SHOES, 0.1, (x - 0.14, 0.26), (x - 0.14, 0.3))
        pen.limb(SHOES, 0.1, (x + 0.15, 0.38), (x + 0.15, 0.42))
        pen.limb(TOP, 0.12, (x - 0.2, 1.42), (x - 0.3, 1.2), (x - 0.27, 1.05))
        pen.limb(TOP, 0.12, (x + 0.2, 1.42), (x + 0.3, 1.2), (x + 0.27, 1.05))
        pen.polygon(
            TOP, (x - 0.17, 0.9), (x + 0.17, 0.9), (x + 0.24, 1.44), (x, 1.54), (x - 0.24, 1.44)
        )
        _head(pen, x, 1.68)
    else:
        pen.limb(TYRE, 0.16, (x - 0.04, 0.95), (x + 0.04, 0.95))
    if rear:
        pen.disc(REAR_LIGHT, x, 0.72, 0.06)
    return pen.sprite(grain=0.07, roundness=0.4, seed=21)


def sample_clothes(rng: np.random.Generator) -> np.ndarray:
    """Colours of all parts of a person and a bicycle, shape (parts, 3)."""
    skin = np.array([214, 170, 140]) * rng.uniform(0.35, 1.1)
    hair = np.array(
        [(40, 30, 25), (110, 75, 45), (190, 160, 100), (130, 130, 130)][rng.integers(4)]
    )
    dark = rng.uniform(20, 70, 3)
    top, bag, frame = (rng.uniform(15, 235) + rng.normal(0, 38, 3) for _ in range(3))
    trousers = rng.uniform(20, 140) + rng.normal(0, 16, 3) + np.array([-6, 0, 10])
    spokes = np.full(3, rng.uniform(70, 150))
    tyre = np.full(3, rng.uniform(18, 45))
    colours = palette(skin, hair, top, trousers, dark, bag, frame, tyre, spokes, (200, 30, 25))
    return np.clip(colours, 5, 245)
