"""Shapes of motorcycles, parked and ridden, in the parts that `people` names."""

from functools import cache

from examples.rendered_scenes.people import (
    FRAME,
    HAIR,
    REAR_LIGHT,
    SHOES,
    SKIN,
    SPOKES,
    TOP,
    TROUSERS,
    TYRE,
)
from examples.rendered_scenes.sprites import Pen, Sprite

_SCALE = 110.0


@cache
def motorcycle_from_side(*, ridden: bool) -> Sprite:
    """A motorcycle that points right, 2.1 m long, with its rider if ``ridden``."""
    pen = Pen(2.12, 1.7 if ridden else 1.2, _SCALE)
    for x in (0.36, 1.74):
        pen.disc(TYRE, x, 0.33, 0.33)
        pen.disc(SPOKES, x, 0.33, 0.19)
        pen.disc(TYRE, x, 0.33, 0.06)
    pen.limb(SPOKES, 0.1, (1.74, 0.33), (1.5, 0.98))
    pen.polygon(TYRE, (0.62, 0.24), (1.34, 0.24), (1.42, 0.6), (0.7, 0.66))
    pen.disc(SPOKES, 1.02, 0.42, 0.17)
    pen.limb(SPOKES, 0.1, (0.98, 0.26), (0.3, 0.3), (0.06, 0.36))
    pen.polygon(FRAME, (0.9, 0.62), (1.5, 0.56), (1.6, 0.86), (1.34, 0.98), (0.94, 0.84))
    pen.polygon(FRAME, (0.05, 0.84), (0.3, 0.7), (0.74, 0.66), (0.96, 0.76), (0.5, 0.86))
    pen.polygon(TYRE, (0.16, 0.84), (0.95, 0.78), (0.92, 0.9), (0.5, 0.88), (0.18, 0.96))
    pen.polygon(FRAME, (1.5, 0.72), (1.76, 0.84), (1.66, 1.02), (1.46, 1.02))
    pen.limb(FRAME, 0.08, (1.5, 0.68), (1.78, 0.7), (1.98, 0.6))
    pen.limb(TYRE, 0.05, (1.48, 1.0), (1.34, 1.1))
    pen.disc(REAR_LIGHT, 0.08, 0.86, 0.06)
    if ridden:
        pen.limb(TROUSERS, 0.22, (0.72, 0.98), (1.2, 0.86), (0.98, 0.46))
        pen.limb(SHOES, 0.13, (0.98, 0.36), (1.14, 0.34))
        pen.polygon(TOP, (0.56, 0.92), (0.86, 0.94), (1.16, 1.28), (1.02, 1.48), (0.78, 1.4))
        pen.limb(TOP, 0.14, (1.06, 1.36), (1.2, 1.12), (1.4, 1.1))
        pen.disc(SHOES, 1.42, 1.1, 0.06)
        _helmet(pen, 1.16, 1.53)
    return pen.sprite(grain=0.06, roundness=0.25, seed=24)


@cache
def motorcycle_from_end(*, ridden: bool, rear: bool) -> Sprite:
    """A motorcycle seen along its length, with its rider if ``ridden``."""
    pen = Pen(0.9, 1.7 if ridden else 1.25, _SCALE)
    x = 0.45
    pen.limb(TYRE, 0.18, (x, 0.09), (x, 0.62))
    pen.box(TYRE, x - 0.25, 0.3, x + 0.25, 0.56)
    pen.polygon(FRAME, (x - 0.2, 0.5), (x + 0.2, 0.5), (x + 0.25, 0.86), (x - 0.25, 0.86))
    pen.limb(TYRE, 0.07, (x - 0.38, 1.06), (x, 0.94), (x + 0.38, 1.06))
    if ridden:
        for side in (-1, 1):
            pen.limb(TROUSERS, 0.2, (x + side * 0.12, 0.9), (x + side * 0.28, 0.74))
            pen.limb(TROUSERS, 0.17, (x + side * 0.28, 0.74), (x + side * 0.25, 0.4))
            pen.limb(SHOES, 0.13, (x + side * 0.25, 0.32), (x + side * 0.25, 0.36))
            pen.limb(TOP, 0.15, (x + side * 0.2, 1.34), (x + side * 0.36, 1.16))
            pen.limb(TOP, 0.13, (x + side * 0.36, 1.16), (x + side * 0.33, 1.06))
        pen.polygon(
            TOP, (x - 0.18, 0.84), (x + 0.18, 0.84), (x + 0.26, 1.38), (x, 1.46), (x - 0.26, 1.38)
        )
        _helmet(pen, x, 1.53)
    if rear:
        pen.box(REAR_LIGHT, x - 0.1, 0.7, x + 0.1, 0.8)
    else:
        pen.disc(SPOKES, x, 0.9, 0.1)
    return pen.sprite(grain=0.06, roundness=0.35, seed=25)


def _helmet(pen: Pen, x: float, y: float) -> None:
    pen.disc(HAIR, x, y, 0.15, 0.16)
    pen.box(SKIN, x, y - 0.05, x + 0.13, y + 0.04)
