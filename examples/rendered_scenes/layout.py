"""What stands where: things are placed in view, on the ground, and never inside each other."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.camera import Camera
from examples.rendered_scenes.street import Street

TREE, BUSH, LAMP_POST, SIGN_POST, BOLLARD = "tree", "bush", "lamp post", "sign post", "bollard"
TRAFFIC_LIGHT = "traffic light"
PERSON, CYCLIST, CYCLE, CAR, TRUCK = "person", "cyclist", "cycle", "car", "truck"
MOTORCYCLIST, MOTORCYCLE, BUS, TRAM = "motorcyclist", "motorcycle", "bus", "tram"
RARE = (TRAFFIC_LIGHT, MOTORCYCLIST, MOTORCYCLE, BUS, TRAM)

_FOOTPRINT = {  # metres along and across its heading, with elbow room
    TREE: (1.2, 1.2),
    BUSH: (1.6, 1.6),
    LAMP_POST: (0.5, 0.5),
    SIGN_POST: (0.7, 0.7),
    BOLLARD: (0.4, 0.4),
    TRAFFIC_LIGHT: (0.6, 0.6),
    PERSON: (0.7, 0.7),
    CYCLIST: (2.0, 1.0),
    CYCLE: (1.9, 0.8),
    CAR: (5.1, 2.1),
    TRUCK: (9.4, 2.7),
    MOTORCYCLIST: (2.3, 1.0),
    MOTORCYCLE: (2.3, 0.9),
    BUS: (12.3, 2.8),
    TRAM: (21.5, 2.7),
}
_HIDES = {
    PERSON: 0.3,
    CYCLIST: 0.5,
    CYCLE: 0.5,
    MOTORCYCLIST: 0.5,
    MOTORCYCLE: 0.6,
    CAR: 1.1,
    TRUCK: 1.4,
    BUS: 1.4,
    TRAM: 1.4,
}
"""Metres to each side of its middle within which an instance hides what is behind it."""

_TRIES = 12

Propose: TypeAlias = Callable[[np.random.Generator, Street, str, float], tuple[float, float, float]]
"""Lateral position, distance and turn from the street's heading, for a kind and a distance."""


@dataclass(frozen=True)
class Standing:
    """One thing on the ground: its kind, place and heading in world axes."""

    kind: str
    position: np.ndarray
    """Metres, shape (3,)."""
    heading: float
    """Radians to the right of the z axis."""


def sample_layout(rng: np.random.Generator, camera: Camera, street: Street) -> list[Standing]:
    """Everything that stands in the street, the nearest first.

    At most ``MAX_INSTANCES`` instances: a rider and what he rides are two.
    """
    plot = _Plot(rng, camera, street)
    room = s.MAX_INSTANCES
    # Few scenes have a crowd: with one in every scene, few things would be seen whole.
    crowd = 6 if rng.random() < 0.12 else 0
    # Where there are no buses and trams, more trucks take their place.
    trucks = (0.6, 0.32, 0.08) if street.has_rare else (0.45, 0.4, 0.15)
    wanted = (
        # Large things first, as they find a place only while there is room.
        (TRAM, int(street.rails is not None and rng.random() < 0.6), _on_rails, (13, 42), 1),
        (BUS, int(rng.choice(2, p=[0.72, 0.28])), _vehicle, (10, 34), 1),
        (TRUCK, int(rng.choice(3, p=trucks)), _vehicle, (9, 30), 1),
        (CAR, int(rng.integers(2, 7)) + crowd, _vehicle, (6.5, 32), 1),
        (CYCLIST, int(rng.choice(4, p=[0.3, 0.4, 0.22, 0.08])), _cyclist, (4.5, 14), 2),
        (CYCLE, int(rng.choice(4, p=[0.4, 0.3, 0.2, 0.1])), _on_sidewalk, (4, 11), 1),
        (MOTORCYCLIST, int(rng.choice(3, p=[0.68, 0.24, 0.08])), _cyclist, (4.5, 13), 2),
        (MOTORCYCLE, int(rng.choice(3, p=[0.65, 0.25, 0.1])), _on_sidewalk, (4, 11), 1),
        (PERSON, int(rng.integers(1, 6)) + crowd, _person, (4.5, 15), 1),
        (SIGN_POST, int(rng.integers(1, 4)), _at_curb, (4.5, 18), 0),
        (TRAFFIC_LIGHT, int(rng.choice(4, p=[0.4, 0.25, 0.2, 0.15])), _at_curb, (5.5, 18), 0),
        (LAMP_POST, int(rng.integers(1, 5)), _at_curb, (5.0, 28), 0),
        (BOLLARD, int(rng.choice([0, 0, 3, 5])), _at_curb, (4.0, 14), 0),
        (TREE, int(rng.choice([0, 1, 3, 5])), _at_curb, (8, 40), 0),
        (BUSH, int(rng.choice([0, 0, 2])), _on_sidewalk, (6, 25), 0),
    )
    for kind, count, propose, reach, instances in wanted:
        for _ in range(count if street.has_rare or kind not in RARE else 0):
            if instances <= room and plot.place(kind, propose, reach):
                room -= instances
    return sorted(plot.things, key=lambda thing: float(thing.position @ thing.position))


class _Plot:
    """The ground while it fills up."""

    def __init__(self, rng: np.random.Generator, camera: Camera, street: Street) -> None:
        self.rng, self.camera, self.street = rng, camera, street
        self.things: list[Standing] = []
        self._seen: list[tuple[float, float, float]] = []
        self._taken: list[tuple[float, float, float, float]] = []

    def place(self, kind: str, propose: Propose, reach: tuple[float, float]) -> bool:
        """Try some places between two distances; return whether one was free and in view."""
        low, high = reach
        for _ in range(_TRIES):
            z = low + (high - low) * self.rng.random() ** 1.4
            lateral, z, turn = propose(self.rng, self.street, kind, z)
            point = self.street.at(lateral, z)
            if self._in_view(kind, point, low) and self._free(kind, lateral, z, turn):
                self.things.append(Standing(kind, point, turn + self.street.heading(z)))
                self._seen.append(self._extent(kind, point))
                return True
        return False

    def _extent(self, kind: str, point: np.ndarray) -> tuple[float, float, float]:
        """Column of the middle, depth, and within how many columns of it a thing hides others."""
        column, _, depth = (float(a[0]) for a in self.camera.project(point[None]))
        return column, depth, self.camera.fx * _HIDES.get(kind, 0.0) / max(depth, 1.0)

    def _in_view(self, kind: str, point: np.ndarray, low: float) -> bool:
        column, depth, reach = self._extent(kind, point)
        width = self.camera.size[1]
        if depth < 0.8 * low or not -0.04 * width < column < 1.04 * width:
            return False
        if not reach:
            return True
        # Things may overlap, but one whose middle is hidden would leave nothing but slivers.
        return all(
            abs(column - other) > (reach if depth < other_depth else other_reach)
            for other, other_depth, other_reach in self._seen
        )

    def _free(self, kind: str, lateral: float, z: float, turn: float) -> bool:
        length, width = _FOOTPRINT[kind]
        across = abs(np.cos(turn)) * width + abs(np.sin(turn)) * length
        along = abs(np.cos(turn)) * length + abs(np.sin(turn)) * width
        for other_lateral, other_z, other_across, other_along in self._taken:
            if (
                2 * abs(lateral - other_lateral) < across + other_across
                and 2 * abs(z - other_z) < along + other_along
            ):
                return False
        self._taken.append((lateral, z, across, along))
        return True


def _vehicle(
    rng: np.random.Generator, street: Street, kind: str, z: float
) -> tuple[float, float, float]:
    margin = 1.15 if kind == CAR else 1.5
    role = rng.random()
    if street.crossing is not None and role < 0.3:
        inside = max(street.crossing.half_width - margin, 0.1)
        z = street.crossing.z + rng.uniform(-inside, inside)
        return rng.uniform(-11, 11), z, float(rng.choice([-0.5, 0.5])) * np.pi
    if role < 0.55:  # parked at a curb
        right = rng.random() < 0.5
        lateral = street.right - margin if right else street.left + margin
        return lateral, z, 0.0 if right or rng.random() < 0.3 else np.pi
    middle = 0.5 * (street.left + street.right)
    if role < 0.86 or kind == BUS:  # too long to stand askew
        ahead = rng.random() < 0.5
        low, high = (middle, street.right) if ahead else (street.left, middle)
        lateral = rng.uniform(low + 1.0, max(high - 1.0, low + 1.1))
        return lateral, max(z, 8.0), 0.0 if ahead else np.pi
    # Turning, or parked askew.
    lateral = rng.uniform(street.left + 1.5, street.right - 1.5)
    return lateral, max(z, 9.0), rng.uniform(-np.pi, np.pi)


def _on_rails(
    rng: np.random.Generator, street: Street, kind: str, z: float
) -> tuple[float, float, float]:
    return float(street.rails or 0.0), z, 0.0 if rng.random() < 0.5 else np.pi


def _cyclist(
    rng: np.random.Generator, street: Street, kind: str, z: float
) -> tuple[float, float, float]:
    turn = float(rng.choice([0.0, 1.0, 0.5, -0.5], p=[0.3, 0.2, 0.25, 0.25])) * np.pi
    lateral = rng.uniform(street.left + 0.4, street.right - 0.4)
    return lateral, z, turn + rng.normal(0, 0.25)


def _person(
    rng: np.random.Generator, street: Street, kind: str, z: float
) -> tuple[float, float, float]:
    if rng.random() < 0.72:
        return _on_sidewalk(rng, street, kind, z)
    z = street.zebra + rng.uniform(0.2, 3.0) if street.zebra is not None else max(z, 7.0)
    return rng.uniform(street.left, street.right), z, 0.0


def _on_sidewalk(
    rng: np.random.Generator, street: Street, kind: str, z: float
) -> tuple[float, float, float]:
    right = rng.random() < 0.5
    low, high = (street.right, street.right_wall) if right else (street.left_wall, street.left)
    lateral = rng.uniform(low + 0.4, high - 0.4)
    return lateral, z, rng.uniform(-0.65, 0.65) + 0.5 * np.pi * (1 if rng.random() < 0.5 else -1)


def _at_curb(
    rng: np.random.Generator, street: Street, kind: str, z: float
) -> tuple[float, float, float]:
    if kind in (SIGN_POST, LAMP_POST, TRAFFIC_LIGHT) and rng.random() < 0.2:
        # A traffic island: what drives behind it is cut in two.
        return rng.uniform(street.left + 1.0, street.right - 1.0), z, 0.0
    right = rng.random() < 0.5
    inwards = rng.uniform(0.25, 0.7)
    lateral = street.right + inwards if right else street.left - inwards
    return lateral, z, 0.0 if right else np.pi
