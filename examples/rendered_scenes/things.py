"""Draws what stands in the street, each thing in colours of its own."""

import numpy as np

from examples.rendered_scenes import furniture, layout, motorcycles, people, transit, vehicles
from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.canvas import UP, Canvas, Paint
from examples.rendered_scenes.layout import Standing
from examples.rendered_scenes.light import Light
from examples.rendered_scenes.sprites import Sprite, surfaces
from examples.rendered_scenes.vehicles import Body

_VEGETATION = surfaces(s.VEGETATION, s.VEGETATION)
_POLE = surfaces(s.POLE, s.POLE)
_SIGN = surfaces(s.SIGN, s.SIGN, s.SIGN)
_TRAFFIC_LIGHT = surfaces(*([s.TRAFFIC_LIGHT] * 4))

_VEHICLE_CLASS = {
    layout.CAR: s.CAR,
    layout.TRUCK: s.TRUCK,
    layout.BUS: s.BUS,
    layout.TRAM: s.TRAIN,
}


class Painter:
    """Draws things and numbers the instances among them.

    Args:
        canvas: Where to draw.
        light: The scene's light.
        rng: Decides sizes and colours.
    """

    def __init__(self, canvas: Canvas, light: Light, rng: np.random.Generator) -> None:
        self.canvas, self.light, self.rng = canvas, light, rng
        self.classes: list[int] = []
        """Label id of each instance drawn so far."""
        self.lamps: list[np.ndarray] = []
        """The positions of the street lamps drawn so far, in world coordinates."""
        self._shadows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def draw(self, things: list[Standing]) -> None:
        """Draw everything; best from near to far, since what is hidden costs little."""
        kinds = {
            **dict.fromkeys(_VEHICLE_CLASS, self._vehicle),
            layout.PERSON: self._person,
            layout.CYCLIST: self._cycle,
            layout.CYCLE: self._cycle,
            layout.MOTORCYCLIST: self._cycle,
            layout.MOTORCYCLE: self._cycle,
            layout.TREE: self._plant,
            layout.BUSH: self._plant,
            layout.LAMP_POST: self._lamp_post,
            layout.SIGN_POST: self._sign_post,
            layout.TRAFFIC_LIGHT: self._traffic_light,
            layout.BOLLARD: self._bollard,
        }
        for thing in things:
            kinds[thing.kind](thing)

    def draw_shadows(self) -> None:
        """Darken the ground below and behind things; the ground must be drawn by then."""
        self.canvas.darken(self._shadows, 0.25 + self.light.shadow, s.GROUND)

    def _instance(self, class_id: int) -> int:
        self.classes.append(class_id)
        return s.FIRST_INSTANCE + len(self.classes) - 1

    def _vehicle(self, thing: Standing) -> None:
        body = _sample_body(self.rng, thing.kind)
        number = self._instance(_VEHICLE_CLASS[thing.kind])
        colours = vehicles.sample_coat(self.rng)
        kinds = surfaces(*([number] * vehicles.NUM_PARTS))
        shining, bright = _vehicle_lamps(thing.kind, number, colours)
        forward = np.array([np.sin(thing.heading), 0.0, np.cos(thing.heading)])
        right = np.array([forward[2], 0.0, -forward[0]])
        length, width = forward * body.length, right * body.width
        # The corner at the rear on the left; everything is measured from there.
        corner = thing.position - 0.5 * length - 0.5 * width

        def face(origin: np.ndarray, u: np.ndarray, v: np.ndarray, sprite: Sprite) -> None:
            # Seen from inside too: that closes the cracks where the outline of a side, which is
            # made of cells, does not quite meet the faces.
            lit = colours * self.light.on(u, v)
            if self.light.burning:
                lit[shining] = self.light.lamp(bright[shining])
            self.canvas.panel(origin, u, v, sprite.parts, Paint(lit, kinds))

        face(corner + width, length, UP * body.height, body.side)
        face(corner + length, -length, UP * body.height, body.side.mirrored)
        for part in body.faces:
            (x, y), (x_up, y_up) = part.lower, part.upper
            rise = forward * (x_up - x) + UP * (y_up - y)
            origin = corner + forward * x + UP * y
            if part.rear:
                face(origin, width, rise, part.sprite)
            else:
                face(origin + width, -width, rise, part.sprite)
        self._shadow(thing.position, 1.12 * length, 1.3 * width)
        self._cast(thing.position, body.height, 0.5 * body.length)

    def _person(self, thing: Standing) -> None:
        rng = self.rng
        sprite = people.walker(int(rng.integers(people.STRIDES)))
        if rng.random() < 0.5:
            sprite = sprite.mirrored
        size = 0.6 if rng.random() < 0.12 else rng.uniform(0.88, 1.08)
        number = self._instance(s.PERSON)
        kinds = np.full(people.NUM_PARTS, number, np.uint8)
        self._upright(thing.position, sprite, size, people.sample_clothes(rng), kinds)
        self._round_shadow(thing.position, 0.38, 1.8 * size)

    def _cycle(self, thing: Standing) -> None:
        rng = self.rng
        ridden = thing.kind in (layout.CYCLIST, layout.MOTORCYCLIST)
        motor = thing.kind in (layout.MOTORCYCLIST, layout.MOTORCYCLE)
        kinds = np.zeros(people.NUM_PARTS, np.uint8)
        if ridden:
            kinds[list(people.PERSON_PARTS)] = self._instance(s.RIDER)
        kinds[list(people.CYCLE_PARTS)] = self._instance(s.MOTORCYCLE if motor else s.BICYCLE)
        colours = people.sample_clothes(rng)
        forward = np.array([np.sin(thing.heading), 0.0, np.cos(thing.heading)])
        away = thing.position / np.sqrt(thing.position @ thing.position)
        along_view = float(forward @ away)
        if abs(along_view) > 0.75:
            from_end = motorcycles.motorcycle_from_end if motor else people.cycle_from_end
            sprite = from_end(ridden=ridden, rear=along_view > 0)
            self._upright(thing.position, sprite, 1.0, colours, kinds)
        else:
            from_side = motorcycles.motorcycle_from_side if motor else people.cycle_from_side
            sprite = from_side(ridden=ridden)
            edge = forward * sprite.width
            if edge @ np.array([away[2], 0.0, -away[0]]) < 0:
                # It heads left: the panel must run from left to right, with the shape mirrored.
                sprite, edge = sprite.mirrored, -edge
            paint = Paint(colours * self.light.all_round, kinds)
            corner = thing.position - 0.5 * edge
            self.canvas.panel(corner, edge, UP * sprite.height, sprite.parts, paint)
        right = np.array([forward[2], 0.0, -forward[0]])
        self._shadow(thing.position, forward * 1.9, right * 0.7)
        self._cast(thing.position, sprite.height, 0.3)

    def _plant(self, thing: Standing) -> None:
        rng = self.rng
        if thing.kind == layout.TREE:
            sprite = furniture.tree(int(rng.integers(furniture.TREES)))
            height = rng.uniform(4.5, 8.5)
            width = height * rng.uniform(0.7, 1.0)
        else:
            sprite = furniture.bush(int(rng.integers(furniture.BUSHES)))
            height, width = rng.uniform(0.8, 1.6), rng.uniform(1.2, 2.2)
        bark = rng.uniform(45, 95) * np.array([1.1, 0.95, 0.8])
        colours = np.array([(0, 0, 0), bark, furniture.sample_leaves(rng)])
        stretched = Sprite(sprite.part, sprite.shade, width, height)
        self._upright(thing.position, stretched, 1.0, colours, _VEGETATION)
        self._round_shadow(thing.position, 0.28 * width, height)

    def _post(self, thing: Standing, width: float, height: float, colour: np.ndarray) -> None:
        # Below a pixel and a half a post would break up into dots.
        depth = float(np.sqrt(thing.position @ thing.position))
        width = max(width, 1.5 * depth / self.canvas.camera.fx)
        plain = furniture.post()
        post = Sprite(plain.part, plain.shade, width, height)
        self._upright(thing.position, post, 1.0, np.stack([colour * 0, colour, colour]), _POLE)
        self._round_shadow(thing.position, 0.5 * width, height)

    def _lamp_post(self, thing: Standing) -> None:
        rng = self.rng
        colour = _metal(rng)
        height = rng.uniform(4.5, 8.0)
        self._post(thing, rng.uniform(0.15, 0.26), height, colour)
        arm = furniture.lamp_arm()
        if np.cos(thing.heading) > 0:  # it reaches over the road, which is on the other side
            arm = arm.mirrored
            start = thing.position - np.array([arm.width, 0.0, 0.0])
        else:
            start = thing.position
        colours = np.stack([colour * 0, colour, np.full(3, 190.0)]) * self.light.all_round
        if self.light.burning:
            colours[furniture.LAMP] = self.light.lamp(np.array([255, 225, 170]))
        edge, corner = np.array([arm.width, 0.0, 0.0]), start + UP * (height - 0.15)
        self.lamps.append(corner + 0.5 * edge)
        self.canvas.panel(corner, edge, UP * arm.height, arm.parts, Paint(colours, _POLE))

    def _sign_post(self, thing: Standing) -> None:
        rng = self.rng
        size = rng.uniform(0.65, 1.0)
        bottom = rng.uniform(1.5, 2.3)
        boards = 2 if rng.random() < 0.35 else 1
        self._post(thing, rng.uniform(0.1, 0.16), bottom + 0.3, _metal(rng))
        # In front of its post, not in the same plane.
        front = thing.position * (1 - 0.12 / np.sqrt(thing.position @ thing.position))
        for board in range(boards):
            plate = furniture.sign(furniture.SIGNS[rng.integers(len(furniture.SIGNS))])
            scaled = Sprite(plate.part, plate.shade, size, size)
            lift = UP * (bottom + 1.04 * board * size)
            self._upright(front + lift, scaled, 1.0, furniture.sample_sign_colours(rng), _SIGN)

    def _traffic_light(self, thing: Standing) -> None:
        rng = self.rng
        bottom = rng.uniform(1.9, 2.9)
        self._post(thing, rng.uniform(0.1, 0.16), bottom + 0.5, _metal(rng))
        front = thing.position * (1 - 0.12 / np.sqrt(thing.position @ thing.position))
        head = furniture.traffic_light(rear=bool(rng.random() < 0.2))
        size = rng.uniform(0.9, 1.15)
        self._upright(front + UP * bottom, head, size, furniture.sample_lamps(rng), _TRAFFIC_LIGHT)

    def _bollard(self, thing: Standing) -> None:
        self._post(
            thing, self.rng.uniform(0.14, 0.22), self.rng.uniform(0.8, 1.1), _metal(self.rng)
        )

    def _upright(
        self, foot: np.ndarray, sprite: Sprite, size: float, colours: np.ndarray, kinds: np.ndarray
    ) -> None:
        """Draw a shape that stands on ``foot`` and turns to the camera."""
        across = np.array([foot[2], 0.0, -foot[0]])
        edge = across * (sprite.width * size / np.sqrt(across @ across))
        paint = Paint(colours * self.light.all_round, kinds)
        up = UP * (sprite.height * size)
        self.canvas.panel(foot - 0.5 * edge, edge, up, sprite.parts, paint)

    def _shadow(self, middle: np.ndarray, edge_u: np.ndarray, edge_v: np.ndarray) -> None:
        self._shadows.append((middle - 0.5 * edge_u - 0.5 * edge_v, edge_u, edge_v))

    def _round_shadow(self, foot: np.ndarray, radius: float, height: float) -> None:
        side = 2.4 * radius
        self._shadow(foot, np.array([side, 0.0, 0.0]), np.array([0.0, 0.0, side]))
        self._cast(foot, height, radius)

    def _cast(self, foot: np.ndarray, height: float, radius: float) -> None:
        """The long shadow that the sun throws."""
        if self.light.cloudiness > 0.7:
            return
        sun = self.light.to_sun
        along = np.array([-sun[0], 0.0, -sun[2]]) * (height / max(-sun[1], 0.3))
        length = float(np.sqrt(along @ along))
        across = np.array([along[2], 0.0, -along[0]]) * (2 * radius / length)
        self._shadows.append((foot - 0.5 * across - 0.1 * along, across, 1.1 * along))


def _sample_body(rng: np.random.Generator, kind: str) -> Body:
    if kind == layout.CAR:
        return vehicles.car(vehicles.CAR_KINDS[rng.integers(len(vehicles.CAR_KINDS))])
    if kind == layout.BUS:
        return transit.bus(coach=bool(rng.random() < 0.3))
    if kind == layout.TRAM:
        return transit.tram(int(rng.integers(2, 4)))
    height = float(rng.choice([2.9, 3.3, 3.7]))
    return vehicles.truck(long=bool(rng.random() < 0.4), cargo_height=height)


def _vehicle_lamps(kind: str, number: int, colours: np.ndarray) -> tuple[list[int], np.ndarray]:
    """Parts of a vehicle that shine after sunset (a third is parked), and colours with theirs."""
    bright = colours.copy()
    bright[vehicles.REAR_LIGHT] = (225, 40, 30)
    bright[vehicles.GLASS] = (150, 132, 96)  # only of those with passengers
    if kind in (layout.BUS, layout.TRAM):
        return [vehicles.HEAD_LIGHT, vehicles.REAR_LIGHT, vehicles.GLASS], bright
    return ([] if number % 3 == 0 else [vehicles.HEAD_LIGHT, vehicles.REAR_LIGHT]), bright


def _metal(rng: np.random.Generator) -> np.ndarray:
    return np.clip(rng.uniform(30, 175) + rng.normal(0, 9, 3), 10, 230)
