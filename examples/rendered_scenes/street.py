"""The ground plan: a bent street, its edges, a street across it, the far end."""

from dataclasses import dataclass, replace

import numpy as np


@dataclass(frozen=True)
class Crossing:
    """A street across: how far away its middle is, and half its width, in metres."""

    z: float
    half_width: float


@dataclass(frozen=True)
class Street:
    """The course of road and sidewalks.

    Lateral positions are metres to the right of the street's line through the camera, which bends
    with ``curvature`` (1/m); a sidewalk lies between an edge of the road and the wall beyond it.
    """

    curvature: float
    left: float
    """Lateral position of the road's left edge; negative."""
    right: float
    """Lateral position of the road's right edge; positive."""
    left_wall: float
    """Lateral position of the buildings on the left."""
    right_wall: float
    """Lateral position of the buildings on the right."""
    lines: tuple[float, ...]
    """Lateral positions of the lines between lanes."""
    zebra: float | None
    """How far away a pedestrian crossing starts."""
    crossing: Crossing | None
    left_verge: tuple[float, float]
    """Lateral positions between which grass grows on the left sidewalk; equal where none does."""
    right_verge: tuple[float, float]
    """The same on the right."""
    left_lawn: bool
    """Whether the ground beyond the left wall is grass, not paved."""
    right_lawn: bool
    """The same on the right."""
    rails: float | None
    """Lateral position of the middle of a tramway."""
    far: float
    """How far away something closes the view."""
    has_rare: bool
    """Whether the rarer classes may occur, among the fields above and among the things."""

    def at(self, lateral: float, z: float) -> np.ndarray:
        """The point of the ground at a lateral position, ``z`` metres ahead."""
        return np.array([lateral + 0.5 * self.curvature * z * z, 0.0, z])

    def heading(self, z: float) -> float:
        """Direction of the street at ``z``, in radians to the right of the z axis."""
        return float(np.arctan(self.curvature * z))

    def lateral(self, x: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Lateral position of points of the ground."""
        return x - 0.5 * self.curvature * z * z


def sample_street(rng: np.random.Generator, *, has_rare: bool = True) -> Street:
    """From a narrow lane to an avenue; the camera is anywhere on the road."""
    road = rng.uniform(5.0, 11.5)
    left = -road * rng.uniform(0.18, 0.82)
    right = left + road
    left_walk, right_walk = rng.uniform(2.2, 8.0, 2)
    lanes = max(1, int(road // rng.uniform(3.0, 4.5)))
    crossing = None
    if rng.random() < 0.45:
        crossing = Crossing(float(rng.uniform(14, 40)), float(rng.uniform(3, 5.5)))
    zebra = float(rng.uniform(6, 22)) if rng.random() < 0.35 else None
    rails = left + road * rng.choice([0.3, 0.7]) if rng.random() < 0.4 else None
    lines = tuple(left + road * k / lanes for k in range(1, lanes))
    street = Street(
        curvature=float(rng.normal(0, 0.004)),
        left=left,
        right=right,
        left_wall=left - left_walk,
        right_wall=right + right_walk,
        lines=lines if rng.random() < 0.8 else (),
        zebra=zebra,
        crossing=crossing,
        left_verge=_verge(rng, left, left - left_walk),
        right_verge=_verge(rng, right, right + right_walk),
        left_lawn=bool(rng.random() < 0.5),
        right_lawn=bool(rng.random() < 0.5),
        rails=rails,
        far=float(rng.uniform(45, 130)),
        has_rare=has_rare,
    )
    if has_rare:
        return street
    street = replace(street, left_verge=(0.0, 0.0), right_verge=(0.0, 0.0))
    return replace(street, left_lawn=False, right_lawn=False, rails=None)


def _verge(rng: np.random.Generator, edge: float, wall: float) -> tuple[float, float]:
    """A strip of grass between the road's edge and the wall: along one of them, or all of it."""
    walk = wall - edge
    kind, share = rng.random(), rng.uniform(0.25, 0.55)
    if kind < 0.22:
        start, end = 0.0, share
    elif kind < 0.44:
        start, end = 1 - share, 1.0
    elif kind < 0.52:
        start, end = 0.0, 1.0
    else:
        start = end = 0.0
    low, high = sorted((edge + start * walk, edge + end * walk))
    return float(low), float(high)
