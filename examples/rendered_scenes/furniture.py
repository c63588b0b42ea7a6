"""Shapes of what the street is furnished with: trees, bushes, poles and traffic signs."""

from functools import cache

import numpy as np

from examples.rendered_scenes.sprites import Pen, Sprite, palette
from examples.rendered_scenes.texture import TILE, noise_tile

TRUNK, LEAVES = 1, 2
POST, LAMP = 1, 2
RIM, FIELD, MARK = 1, 2, 3
HOUSING, RED, AMBER, GREEN = 1, 2, 3, 4
TREES, BUSHES = 6, 3
SIGNS = ("triangle", "circle", "square", "octagon", "arrow", "diamond")


@cache
def tree(number: int) -> Sprite:
    """One of ``TREES`` trees in a unit square: a trunk below a ragged crown."""
    pen = Pen(1.0, 1.0, 144)
    rng = np.random.default_rng([551, number])
    pen.polygon(TRUNK, (0.468, 0), (0.532, 0), (0.516, 0.5), (0.484, 0.5))
    pen.limb(TRUNK, 0.025, (0.5, 0.4), (0.62, 0.55))
    pen.limb(TRUNK, 0.025, (0.5, 0.36), (0.39, 0.52))
    low = rng.uniform(0.32, 0.42)
    for _ in range(22):
        angle, reach = rng.uniform(0, 2 * np.pi), np.sqrt(rng.random())
        x = 0.5 + 0.33 * reach * np.cos(angle)
        y = 0.5 * (low + 1) + 0.5 * (0.8 - low) * reach * np.sin(angle)
        pen.disc(LEAVES, x, y, rng.uniform(0.07, 0.15))
    return _foliage(pen, number)


@cache
def bush(number: int) -> Sprite:
    """One of ``BUSHES`` bushes in a unit square."""
    pen = Pen(1.0, 1.0, 96)
    rng = np.random.default_rng([552, number])
    for _ in range(14):
        pen.disc(LEAVES, rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.6), rng.uniform(0.14, 0.28))
    pen.box(LEAVES, 0.06, 0.0, 0.94, 0.3)
    return _foliage(pen, 20 + number)


def _foliage(pen: Pen, seed: int) -> Sprite:
    part = np.array(pen.image)
    rows, columns = part.shape
    y, x = np.mgrid[0:rows, 0:columns]
    fine = noise_tile(40 + seed)[(y * 2) % TILE, (x * 2) % TILE]
    clumps = noise_tile(70 + seed, 4)[(y * 2) % TILE, (x * 2) % TILE]
    leaves = part == LEAVES
    part[leaves & (fine + 0.5 * clumps > 1.75)] = 0
    light_above = 0.62 + 0.5 * (1 - y / rows)
    shade = np.where(leaves, light_above + 0.17 * fine + 0.2 * clumps, 0.9 + 0.1 * fine)
    return Sprite(part, np.clip(shade, 0.2, 1.8).astype(np.float32), 1.0, 1.0)


@cache
def post() -> Sprite:
    """A plain round post, to be stretched."""
    part = np.full((16, 16), POST, np.uint8)
    across = (np.arange(16) + 0.5) / 16
    shade = np.broadcast_to(1.15 - 0.55 * across, part.shape).astype(np.float32)
    return Sprite(part, shade, 1.0, 1.0)


@cache
def lamp_arm() -> Sprite:
    """The arm of a street lamp, 1.8 m long, reaching to the right."""
    pen = Pen(1.8, 0.5, 60)
    pen.limb(POST, 0.12, (0.06, 0.1), (0.5, 0.33), (1.3, 0.4))
    pen.box(LAMP, 1.1, 0.26, 1.8, 0.46)
    return pen.sprite(seed=50)


@cache
def sign(shape: str) -> Sprite:
    """One of ``SIGNS``, in a unit square."""
    pen = Pen(1.0, 1.0, 72)
    if shape == "triangle":
        pen.polygon(RIM, (0.0, 0.06), (1.0, 0.06), (0.5, 0.97))
        pen.polygon(FIELD, (0.2, 0.18), (0.8, 0.18), (0.5, 0.73))
        pen.box(MARK, 0.46, 0.24, 0.54, 0.52)
    elif shape == "circle":
        pen.disc(RIM, 0.5, 0.5, 0.5)
        pen.disc(FIELD, 0.5, 0.5, 0.36)
        pen.box(MARK, 0.27, 0.44, 0.73, 0.56)
    elif shape == "octagon":
        angle = np.pi / 8 + np.arange(8) * np.pi / 4
        corners = np.stack([0.5 + 0.54 * np.cos(angle), 0.5 + 0.54 * np.sin(angle)], axis=1)
        pen.polygon(RIM, *(tuple(p) for p in corners))
        pen.box(MARK, 0.2, 0.4, 0.8, 0.6)
    elif shape == "diamond":
        pen.polygon(FIELD, (0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5))
        pen.polygon(RIM, (0.5, 0.16), (0.84, 0.5), (0.5, 0.84), (0.16, 0.5))
    elif shape == "arrow":
        pen.polygon(FIELD, (0, 0.2), (0.78, 0.2), (1.0, 0.5), (0.78, 0.8), (0, 0.8))
        pen.box(MARK, 0.1, 0.4, 0.7, 0.48)
        pen.box(MARK, 0.1, 0.56, 0.55, 0.64)
    else:
        pen.box(RIM, 0.02, 0.02, 0.98, 0.98)
        pen.box(FIELD, 0.1, 0.1, 0.9, 0.9)
        pen.polygon(MARK, (0.25, 0.25), (0.75, 0.25), (0.5, 0.75))
    return pen.sprite(grain=0.04, seed=51)


@cache
def traffic_light(*, rear: bool) -> Sprite:
    """The head of a traffic light, 0.46 m wide: three lamps in hoods, or its blank back."""
    pen = Pen(0.46, 1.15, 90)
    pen.box(HOUSING, 0.03, 0.0, 0.43, 1.15)
    for lamp, y in ((GREEN, 0.21), (AMBER, 0.57), (RED, 0.93)):
        pen.box(HOUSING, 0.0, y + 0.1, 0.46, y + 0.17)
        if not rear:
            pen.disc(lamp, 0.23, y, 0.135)
    return pen.sprite(grain=0.05, roundness=0.3, seed=52)


def sample_lamps(rng: np.random.Generator) -> np.ndarray:
    """Housing and red, amber and green lamp of a traffic light; one of them, or two, is lit."""
    housing = np.full(3, rng.uniform(18, 60)) if rng.random() < 0.8 else np.array([190, 150, 40])
    lamps = np.array([(235, 45, 35), (240, 170, 40), (40, 210, 130)], float)
    lit = np.array(
        [(1, 0, 0), (0, 0, 1), (0, 1, 0), (1, 1, 0)][rng.choice(4, p=[0.4, 0.4, 0.1, 0.1])]
    )
    return palette(housing, *(lamps * np.where(lit, 1.0, 0.22)[:, None]))


def sample_leaves(rng: np.random.Generator) -> np.ndarray:
    """The colour of foliage: mostly some green, at times of autumn or nearly grey, shape (3,)."""
    season = rng.random()
    if season < 0.68:
        base = np.array([70, 98, 52])
    elif season < 0.86:
        base = np.array([138, 98, 52])
    else:
        base = np.array([98, 96, 84])
    return np.clip(base * rng.uniform(0.45, 1.45) + rng.normal(0, 10, 3), 12, 220)


def sample_sign_colours(rng: np.random.Generator) -> np.ndarray:
    """Rim, field and mark of a sign: red and white, blue, yellow, or a board of any colour."""
    red, white, blue, yellow = (190, 32, 30), (225, 225, 220), (32, 74, 160), (225, 180, 40)
    schemes = (
        (red, white, (25, 25, 25)),
        (white, blue, white),
        (red, blue, red),
        (yellow, white, (40, 40, 40)),
        ((60, 60, 60), yellow, (30, 30, 30)),
    )
    colours = palette(*schemes[rng.integers(len(schemes))])
    return np.clip(colours * rng.uniform(0.7, 1.1) + rng.normal(0, 8, 3), 5, 245)
