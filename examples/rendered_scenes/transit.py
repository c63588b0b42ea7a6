"""Shapes of buses and trams: rows of windows above the street, doors, a long flat side."""

from functools import cache

import numpy as np

from examples.rendered_scenes.sprites import Pen, Sprite
from examples.rendered_scenes.vehicles import (
    BODY,
    CARGO,
    CARGO_EDGE,
    DARK,
    GLASS,
    HEAD_LIGHT,
    PLATE,
    REAR_LIGHT,
    TRIM,
    Body,
    Face,
    wheel,
)

_SCALE = 45.0
_WIDTH = 2.5


@cache
def bus(*, coach: bool) -> Body:
    """A city bus with a low floor and doors, or a coach with high windows."""
    length, height = (11.9, 3.4) if coach else (10.9, 3.0)
    sill = 1.55 if coach else 1.15
    pen = Pen(length, height, _SCALE)
    pen.box(BODY, 0, 0.3, length, height)
    pen.box(CARGO, 0, 0.3, length, 0.75 if coach else 0.62)
    pen.box(TRIM, 0, 0.28, length, 0.36)
    pen.box(GLASS, 0.25, sill, length - 0.05, height - 0.42)
    for x in np.arange(1.5, length - 1.0, 1.5):
        pen.box(DARK, x, sill, x + 0.1, height - 0.42)
    if not coach:
        for x in (0.28 * length, 0.56 * length, 0.9 * length):
            _door(pen, x, 1.2 if x < 0.8 * length else 0.9, height - 0.45)
    for x in (0.22 * length, 0.76 * length):
        wheel(pen, x, 0.47)
    side = pen.sprite(grain=0.015, seed=60)
    faces = (
        Face((0, 0), (0, height), True, _bus_end(height, sill, rear=True)),
        Face((length, 0), (length - 0.05, height), False, _bus_end(height, sill, rear=False)),
    )
    return Body(length, _WIDTH, height, side, faces)


def _door(pen: Pen, x: float, width: float, top: float) -> None:
    pen.box(TRIM, x - width / 2, 0.36, x + width / 2, top)
    for left in (x - width / 2 + 0.07, x + 0.04):
        pen.box(GLASS, left, 0.5, left + width / 2 - 0.11, top - 0.1)


def _bus_end(height: float, sill: float, *, rear: bool) -> Sprite:
    pen = Pen(_WIDTH, height, _SCALE)
    for x in (0.2, _WIDTH - 0.55):
        pen.box(DARK, x, 0.0, x + 0.35, 0.5)
    pen.box(BODY, 0, 0.26, _WIDTH, height)
    pen.box(TRIM, 0, 0.26, _WIDTH, 0.42)
    pen.box(PLATE, _WIDTH / 2 - 0.26, 0.46, _WIDTH / 2 + 0.26, 0.58)
    if rear:
        pen.box(GLASS, 0.35, sill + 0.45, _WIDTH - 0.35, height - 0.45)
        pen.box(DARK, 0.4, 0.7, _WIDTH - 0.4, sill + 0.1)
        for x in (0.06, _WIDTH - 0.26):
            pen.box(REAR_LIGHT, x, 0.7, x + 0.2, 1.35)
    else:
        pen.box(GLASS, 0.08, sill - 0.1, _WIDTH - 0.08, height - 0.5)
        pen.box(DARK, 0.2, height - 0.42, _WIDTH - 0.2, height - 0.1)
        pen.box(PLATE, 0.45, height - 0.36, _WIDTH - 0.45, height - 0.17)
        pen.box(DARK, _WIDTH / 2 - 0.03, sill - 0.1, _WIDTH / 2 + 0.03, height - 0.5)
        for x in (0.08, _WIDTH - 0.48):
            pen.box(HEAD_LIGHT, x, 0.55, x + 0.4, 0.75)
    return pen.sprite(grain=0.015, seed=61)


@cache
def tram(sections: int) -> Body:
    """A tram of some sections, alike at both ends; its wheels are hidden behind skirts."""
    part, height, width = 7.0, 3.45, 2.4
    length = sections * part
    slant = 0.75
    pen = Pen(length, height, _SCALE)
    pen.box(DARK, 0.6, 0.0, length - 0.6, 0.35)
    pen.polygon(
        BODY, (0.0, 0.22), (length, 0.22), (length, 1.1), (length - slant, 3.05),
        (slant, 3.05), (0.0, 1.1),
    )  # fmt: skip
    pen.box(CARGO_EDGE, slant + 0.6, 3.05, length - slant - 0.6, 3.3)
    pen.box(CARGO, 0.0, 0.22, length, 0.95)
    pen.box(GLASS, slant + 0.35, 1.2, length - slant - 0.35, 2.5)
    for k in range(sections):
        start = k * part
        for x in np.arange(start + 1.0, start + part, 1.2):
            pen.box(BODY, x, 1.1, x + 0.16, 2.6)
        _door(pen, start + 0.5 * part, 1.4, 2.6)
        if k:
            for x in np.arange(start - 0.36, start + 0.3, 0.16):
                pen.box(DARK, x, 0.3, x + 0.09, 3.0)
    middle = 0.5 * length
    pen.limb(DARK, 0.07, (middle - 0.9, 3.3), (middle, 3.42), (middle + 0.9, 3.3))
    side = pen.sprite(grain=0.015, seed=62)
    front, rear = (_tram_end(width, rear=rear) for rear in (False, True))
    window = _tram_window(width)
    faces = (
        Face((0, 0), (0, 1.1), True, rear),
        Face((0, 1.1), (slant, 3.05), True, window),
        Face((length, 0), (length, 1.1), False, front),
        Face((length, 1.1), (length - slant, 3.05), False, window),
    )
    return Body(length, width, height, side, faces)


def _tram_end(width: float, *, rear: bool) -> Sprite:
    pen = Pen(width, 1.1, _SCALE)
    pen.box(DARK, 0.4, 0.0, width - 0.4, 0.3)
    pen.box(CARGO, 0, 0.22, width, 0.95)
    pen.box(BODY, 0, 0.8, width, 1.1)
    pen.box(DARK, width / 2 - 0.2, 0.1, width / 2 + 0.2, 0.4)
    light = REAR_LIGHT if rear else HEAD_LIGHT
    for x in (0.15, width - 0.45):
        pen.box(light, x, 0.6, x + 0.3, 0.82)
    return pen.sprite(grain=0.015, seed=63)


def _tram_window(width: float) -> Sprite:
    pen = Pen(width, 2.1, _SCALE)
    pen.box(BODY, 0, 0, width, 2.1)
    pen.polygon(GLASS, (0.12, 0.1), (width - 0.12, 0.1), (width - 0.3, 1.5), (0.3, 1.5))
    pen.box(DARK, 0.4, 1.6, width - 0.4, 1.95)
    pen.box(PLATE, 0.75, 1.66, width - 0.75, 1.89)
    return pen.sprite(grain=0.02, seed=64)
