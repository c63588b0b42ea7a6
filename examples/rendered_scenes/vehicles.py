"""Shapes of cars and trucks: a side view, swept across the width, and what the ends look like."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from examples.rendered_scenes.sprites import Pen, Point, Sprite, palette

BODY, GLASS, DARK, HUB, HEAD_LIGHT, REAR_LIGHT, PLATE, TRIM, CARGO, CARGO_EDGE = range(1, 11)
NUM_PARTS = 10
_SCALE = 60.0


@dataclass(frozen=True)
class Face:
    """A flat face across a vehicle's width, from one point of the side view up to another."""

    lower: Point
    """Metres from the rear, metres above the ground."""
    upper: Point
    rear: bool
    """Whether it is seen from behind, not from the front."""
    sprite: Sprite


@dataclass(frozen=True)
class Body:
    """A vehicle: its sizes in metres, side view (pointing right) and faces."""

    length: float
    width: float
    height: float
    side: Sprite
    faces: tuple[Face, ...]


_Outline = tuple[Point, Point, Point, Point, Point, Point]
"""Tail's top, rear window's foot and top, windscreen's top and foot, nose's top."""

_CARS: dict[str, tuple[float, _Outline]] = {  # width and outline; the nose is at full length
    "saloon": (1.8, ((0, 0.95), (0.75, 1.02), (1.4, 1.43), (2.5, 1.46), (3.35, 1.0), (4.6, 0.8))),
    "hatch": (1.75, ((0, 0.95), (0.08, 1.0), (0.5, 1.46), (2.0, 1.52), (2.95, 1.02), (4.0, 0.8))),
    "estate": (1.82, ((0, 0.95), (0.06, 1.0), (0.45, 1.44), (2.5, 1.5), (3.4, 1.0), (4.7, 0.8))),
    "suv": (1.9, ((0, 1.0), (0.06, 1.1), (0.35, 1.68), (2.5, 1.74), (3.25, 1.16), (4.6, 1.0))),
    "van": (1.92, ((0, 1.0), (0.03, 1.1), (0.12, 1.9), (3.3, 1.94), (4.2, 1.16), (4.8, 0.95))),
}
CAR_KINDS = tuple(_CARS)


@cache
def car(kind: str) -> Body:
    """One of ``CAR_KINDS``."""
    width, outline = _CARS[kind]
    tail, deck, rear_top, front_top, scuttle, nose = outline
    length, height = nose[0], front_top[1]
    faces = (
        Face((0, 0.0), tail, True, _car_end(width, tail[1], rear=True)),
        Face(tail, deck, True, _plain(width, 0.3)),
        Face(deck, rear_top, True, _window(width, 0.5, high=kind == "van")),
        Face((length, 0.0), nose, False, _car_end(width, nose[1], rear=False)),
        Face(nose, scuttle, False, _plain(width, 1.2)),
        Face(scuttle, front_top, False, _window(width, 0.6, high=False)),
    )
    return Body(length, width, height, _car_side(length, height, outline), faces)


def _car_side(length: float, height: float, outline: _Outline) -> Sprite:
    pen = Pen(length, height, _SCALE)
    deck, rear_top, front_top, scuttle = outline[1:5]
    pen.polygon(BODY, (0, 0.26), *outline, (length, 0.26))
    sill = max(deck[1], scuttle[1])
    pen.polygon(
        GLASS, (deck[0] + 0.18, sill), (rear_top[0] + 0.1, rear_top[1] - 0.09),
        (front_top[0] - 0.05, front_top[1] - 0.09), (scuttle[0] - 0.14, sill),
    )  # fmt: skip
    middle = 0.5 * (rear_top[0] + front_top[0]) + 0.1
    pen.box(BODY, middle - 0.05, sill, middle + 0.05, height)
    pen.box(TRIM, 0, 0.24, length, 0.33)
    for x in (middle, scuttle[0] - 0.15, rear_top[0] + 0.1):
        pen.limb(TRIM, 0.02, (x, 0.35), (x, sill - 0.04))
    pen.box(TRIM, middle + 0.12, sill - 0.16, middle + 0.3, sill - 0.12)
    pen.box(REAR_LIGHT, 0.0, outline[0][1] - 0.25, 0.12, outline[0][1] - 0.08)
    pen.box(HEAD_LIGHT, length - 0.25, outline[5][1] - 0.2, length, outline[5][1] - 0.06)
    for x in (0.17 * length, 0.82 * length):
        wheel(pen, x, 0.33)
    return pen.sprite(grain=0.015, seed=30)


def _car_end(width: float, height: float, *, rear: bool) -> Sprite:
    pen = Pen(width, height, 1.5 * _SCALE)
    pen.box(DARK, 0.08, 0.0, 0.3, 0.5)
    pen.box(DARK, width - 0.3, 0.0, width - 0.08, 0.5)
    pen.box(DARK, 0.05, 0.17, width - 0.05, 0.4)
    # Up to both edges: a gap beside the side view would let the street shine through the corner.
    pen.box(BODY, 0, 0.26, width, height)
    light, low = (REAR_LIGHT, height - 0.34) if rear else (HEAD_LIGHT, height - 0.26)
    pen.box(light, 0.05, low, 0.36, low + 0.2)
    pen.box(light, width - 0.36, low, width - 0.05, low + 0.2)
    pen.box(TRIM, 0, 0.26, width, 0.38)
    if not rear:
        pen.box(DARK, 0.42, 0.46, width - 0.42, 0.66)
    pen.box(PLATE, width / 2 - 0.26, 0.42, width / 2 + 0.26, 0.54)
    return pen.sprite(grain=0.015, seed=31)


def _window(width: float, height: float, *, high: bool) -> Sprite:
    pen = Pen(width, height, _SCALE)
    pen.box(BODY, 0, 0, width, height)
    low = 0.3 * height if high else 0.05 * height
    pen.polygon(
        GLASS, (0.1, low), (width - 0.1, low), (width - 0.2, 0.86 * height), (0.2, 0.86 * height)
    )
    return pen.sprite(grain=0.04, roundness=0.35, seed=32)


def _plain(width: float, height: float) -> Sprite:
    pen = Pen(width, height, _SCALE)
    pen.box(BODY, 0, 0, width, height)
    return pen.sprite(grain=0.03, seed=33)


def wheel(pen: Pen, x: float, radius: float) -> None:
    """A wheel below an arch, its middle ``x`` metres from the rear."""
    pen.disc(DARK, x, radius + 0.04, radius + 0.06)
    pen.disc(DARK, x, radius, radius)
    pen.disc(HUB, x, radius, 0.58 * radius)
    pen.disc(DARK, x, radius, 0.16 * radius)


@cache
def truck(*, long: bool, cargo_height: float) -> Body:
    """A truck with a box body and a cab in front."""
    length, width, height = (9.0 if long else 6.6), 2.45, cargo_height
    cab, cab_top = length - 1.9, min(height - 0.15, 2.75)
    pen = Pen(length, height, _SCALE)
    pen.box(TRIM, 0.2, 0.55, length - 0.2, 0.85)
    pen.box(CARGO, 0, 0.85, cab - 0.15, height)
    for x in np.arange(0.0, cab - 0.2, 0.9):
        pen.box(CARGO_EDGE, x, 0.85, x + 0.06, height)
    pen.box(CARGO_EDGE, 0, 0.85, cab - 0.15, 0.95)
    pen.box(CARGO_EDGE, 0, height - 0.1, cab - 0.15, height)
    pen.polygon(
        BODY, (cab, 0.45), (length, 0.4), (length, 1.5), (length - 0.25, cab_top), (cab, cab_top)
    )
    pen.polygon(
        GLASS, (cab + 0.55, 1.5), (length - 0.06, 1.5), (length - 0.28, cab_top - 0.25),
        (cab + 0.55, cab_top - 0.25),
    )  # fmt: skip
    pen.box(DARK, cab - 0.15, 0.55, cab, cab_top - 0.3)
    for x in (1.1, *((2.3,) if long else ()), length - 1.0):
        wheel(pen, x, 0.5)
    side = pen.sprite(grain=0.015, seed=34)
    faces = (
        Face((0, 0), (0, height), True, _truck_rear(width, height)),
        Face((length, 0), (length - 0.12, cab_top), False, _truck_front(width, cab_top)),
        Face(
            (cab - 0.15, cab_top), (cab - 0.15, height), False, _truck_box(width, height - cab_top)
        ),
    )
    return Body(length, width, height, side, faces)


def _truck_rear(width: float, height: float) -> Sprite:
    pen = Pen(width, height, _SCALE)
    pen.box(DARK, 0.15, 0.0, 0.65, 0.95)
    pen.box(DARK, width - 0.65, 0.0, width - 0.15, 0.95)
    pen.box(TRIM, 0.05, 0.45, width - 0.05, 0.9)
    pen.box(REAR_LIGHT, 0.1, 0.6, 0.5, 0.8)
    pen.box(REAR_LIGHT, width - 0.5, 0.6, width - 0.1, 0.8)
    pen.box(PLATE, width / 2 - 0.3, 0.55, width / 2 + 0.3, 0.7)
    pen.box(CARGO_EDGE, 0, 0.85, width, height)
    pen.box(CARGO, 0.1, 0.95, width / 2 - 0.04, height - 0.1)
    pen.box(CARGO, width / 2 + 0.04, 0.95, width - 0.1, height - 0.1)
    for x in (width / 2 - 0.25, width / 2 + 0.25):
        pen.limb(TRIM, 0.05, (x, 1.1), (x, height - 0.2))
    return pen.sprite(grain=0.015, seed=35)


def _truck_front(width: float, height: float) -> Sprite:
    pen = Pen(width, height, _SCALE)
    pen.box(DARK, 0.15, 0.0, 0.5, 0.6)
    pen.box(DARK, width - 0.5, 0.0, width - 0.15, 0.6)
    pen.box(BODY, 0, 0.4, width, height)
    pen.box(TRIM, 0.05, 0.4, width - 0.05, 0.65)
    pen.box(DARK, 0.4, 0.8, width - 0.4, 1.3)
    pen.box(GLASS, 0.12, 1.45, width - 0.12, height - 0.35)
    pen.box(HEAD_LIGHT, 0.1, 0.7, 0.4, 0.9)
    pen.box(HEAD_LIGHT, width - 0.4, 0.7, width - 0.1, 0.9)
    pen.box(PLATE, width / 2 - 0.26, 0.45, width / 2 + 0.26, 0.58)
    return pen.sprite(grain=0.015, seed=36)


def _truck_box(width: float, height: float) -> Sprite:
    pen = Pen(width, height, _SCALE)
    pen.box(CARGO, 0, 0, width, height)
    return pen.sprite(grain=0.015, seed=37)


def sample_coat(rng: np.random.Generator) -> np.ndarray:
    """Colours of all parts of a vehicle, shape (parts, 3)."""
    body, cargo = (_coat(rng) for _ in range(2))
    glass = np.array([50, 58, 66]) * rng.uniform(0.6, 1.8)
    hub = np.full(3, rng.uniform(80, 170))
    colours = palette(
        body, glass, (24, 24, 26), hub, (235, 232, 215), (185, 28, 24), (215, 215, 205),
        (48, 48, 50), cargo, cargo * rng.uniform(0.6, 0.85),
    )  # fmt: skip
    return np.clip(colours, 5, 250)


def _coat(rng: np.random.Generator) -> np.ndarray:
    grey = rng.uniform(25, 235)
    if rng.random() < 0.6:
        return np.full(3, grey) + rng.normal(0, 5, 3)
    return np.clip(grey * 0.75 + rng.normal(0, 36, 3), 10, 240)
