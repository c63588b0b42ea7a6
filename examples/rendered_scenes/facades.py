"""Buildings and greenery along the street, and what closes the view."""

import numpy as np

from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.boundaries import draw_fence, draw_wall
from examples.rendered_scenes.canvas import UP, Canvas, Paint, Parts
from examples.rendered_scenes.furniture import sample_leaves
from examples.rendered_scenes.light import Light
from examples.rendered_scenes.sprites import palette, surfaces
from examples.rendered_scenes.street import Street
from examples.rendered_scenes.texture import cell_tile, look_up, noise_tile

WALL, FRAME, GLASS, CORNICE, SHOP, AWNING, ROOF, LIT = range(1, 9)
_BUILDING = surfaces(*([s.BUILDING] * 8))
_GREENERY = surfaces(s.VEGETATION)


def draw_sides(canvas: Canvas, street: Street, light: Light, rng: np.random.Generator) -> None:
    """Both sides of the street from near to far, and then the far end."""
    for side in (-1, 1):
        wall = street.right_wall if side > 0 else street.left_wall
        green = rng.choice([0.08, 0.35, 0.9], p=[0.55, 0.25, 0.2])
        z = float(rng.uniform(-6, 1))
        tall = rng.uniform(5, 18)
        enclosed = rng.choice([0.3, 0.95], p=[0.45, 0.55])
        while z < street.far:
            length = rng.uniform(7, 17)
            end = z + length
            if street.crossing is not None:
                z, end = _keep_clear(z, end, street.crossing.z, street.crossing.half_width + 2.5)
            lot = _Lot(canvas, street, light, side, abs(wall) + _setback(rng), z, end)
            if end > 1.0 and end - z > 2.0:
                if street.has_rare and rng.random() < enclosed:
                    lot.enclose(rng)
                    lot = lot.behind(float(rng.uniform(3, 8)))
                if rng.random() < green:
                    lot.greenery(rng)
                else:
                    lot.building(rng, float(np.clip(tall + rng.normal(0, 3), 4, 24)))
            z = max(end, z + 1.0)
    _far_end(canvas, street, light, rng)


def _setback(rng: np.random.Generator) -> float:
    return float(rng.uniform(0.5, 4)) if rng.random() < 0.3 else 0.0


def _keep_clear(z: float, end: float, middle: float, half: float) -> tuple[float, float]:
    if end <= middle - half or z >= middle + half:
        return z, end
    if z < middle - half:
        return z, middle - half
    return middle + half, max(end, middle + half + 7)


class _Lot:
    """A piece of ground on one side of the street; ``wall`` is how far its front is from x = 0."""

    def __init__(
        self,
        canvas: Canvas,
        street: Street,
        light: Light,
        side: int,
        wall: float,
        z: float,
        end: float,
    ) -> None:
        self.canvas, self.street, self.light, self.side = canvas, street, light, side
        self.wall, self.z, self.end = wall, z, end
        self.near, self.far = street.at(side * wall, z), street.at(side * wall, end)

    def behind(self, distance: float) -> "_Lot":
        """The lot with its front further back."""
        wall = self.wall + distance
        return _Lot(self.canvas, self.street, self.light, self.side, wall, self.z, self.end)

    def enclose(self, rng: np.random.Generator) -> None:
        """A wall or a fence along the front and the near side."""
        draw = draw_wall if rng.random() < 0.5 else draw_fence
        start, stop = (self.far, self.near) if self.side > 0 else (self.near, self.far)
        draw(self.canvas, self.light, start, stop - start, rng)

    def building(self, rng: np.random.Generator, height: float) -> None:
        colours, facade = sample_building(rng)
        start, stop = (self.far, self.near) if self.side > 0 else (self.near, self.far)
        _wall(self.canvas, self.light, start, stop - start, height, colours, facade)
        depth = np.array([rng.uniform(7, 12), 0.0, 0.0])
        corner = self.near if self.side > 0 else self.near - depth
        _wall(self.canvas, self.light, corner, depth, height, colours, facade)

    def greenery(self, rng: np.random.Generator) -> None:
        height = float(rng.choice([1.2, 3.0, 7.0]) * rng.uniform(0.8, 1.3))
        start, stop = (self.far, self.near) if self.side > 0 else (self.near, self.far)
        _hedge(self.canvas, self.light, start, stop - start, height, rng)
        across = np.array([8.0, 0.0, 0.0])
        corner = self.near if self.side > 0 else self.near - across
        _hedge(self.canvas, self.light, corner, across, height, rng)


def _far_end(canvas: Canvas, street: Street, light: Light, rng: np.random.Generator) -> None:
    forward = np.array([np.sin(canvas.camera.yaw), 0.0, np.cos(canvas.camera.yaw)])
    right = np.array([forward[2], 0.0, -forward[0]])
    reach = 0.62 * street.far
    across = -reach
    green = rng.random() < 0.35
    while across < reach:
        width = rng.uniform(12, 30)
        origin = forward * (street.far + rng.uniform(0, 12)) + right * across
        if green or rng.random() < 0.2:
            _hedge(canvas, light, origin, right * width, rng.uniform(5, 13), rng)
        else:
            colours, facade = sample_building(rng)
            _wall(canvas, light, origin, right * width, rng.uniform(6, 20), colours, facade)
        across += width


def _wall(
    canvas: Canvas,
    light: Light,
    origin: np.ndarray,
    along: np.ndarray,
    height: float,
    colours: np.ndarray,
    facade: "Facade",
) -> None:
    length = float(np.sqrt(along @ along))
    shaded = colours * light.on(along, UP)
    shaded[LIT] = light.lamp(colours[LIT])
    paint = Paint(shaded, _BUILDING)
    parts = facade.parts(length, height, light.lit)
    canvas.panel(origin, along, UP * height, parts, paint, one_sided=True)


class Facade:
    """How the walls of one building are divided into windows, bands, shop and roof."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.bay, self.storey = rng.uniform(1.6, 3.6), rng.uniform(2.7, 3.6)
        self.window = rng.uniform(0.3, 0.72), rng.uniform(0.4, 0.72)
        self.shop = rng.random() < 0.35
        self.roof = rng.uniform(1.2, 3.0) if rng.random() < 0.45 else 0.0
        self.band = rng.random() < 0.5
        self.grain = rng.uniform(0.03, 0.12)
        self.bricks = rng.random() < 0.35
        self.offset = rng.uniform(0, 200, 2)

    def parts(self, length: float, height: float, lit: float) -> Parts:
        """Part and brightness on a wall of ``length`` by ``height`` metres.

        Of the windows, the share ``lit`` shines.
        """
        # Whole bays: a window cut by the corner of a house looks wrong.
        bay = length / max(1, round(length / self.bay))
        window_u, window_v = 0.5 * self.window[0], 0.5 * self.window[1]

        def parts(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            x, y = u * np.float32(length), v * np.float32(height)
            column, level = x / np.float32(bay), y / np.float32(self.storey)
            cell_x, cell_y = column.astype(np.int32), level.astype(np.int32)
            du, dv = np.abs(column - cell_x - 0.5), np.abs(level - cell_y - 0.5)
            part = np.full(u.shape, WALL, np.uint8)
            if self.band:
                part[(dv > 0.46) & (level > 0.6)] = CORNICE
            framed = (du < window_u + 0.05) & (dv < window_v + 0.04)
            glazed = (du < window_u) & (dv < window_v)
            part[framed] = FRAME
            part[glazed] = GLASS
            if self.shop:
                ground_floor = cell_y == 0
                part[ground_floor] = SHOP
                part[ground_floor & (du < 0.42) & (dv < 0.32)] = GLASS
                part[(y > 2.5) & (y < 3.1)] = AWNING
            if self.roof:
                part[y > height - self.roof] = ROOF
            rough = look_up(noise_tile(4), x * 9 + self.offset[0], y * 9 + self.offset[1])
            stains = look_up(noise_tile(5), x * 1.5 + self.offset[1], y * 0.7 + self.offset[0])
            shade = 1 + self.grain * rough + 0.06 * stains
            if self.bricks:
                shade -= 0.12 * ((y * 5) % 1 < 0.25)
            draw = look_up(cell_tile(), cell_x + self.offset[0], cell_y + self.offset[1])
            if lit:
                part[(part == GLASS) & (draw < lit)] = LIT
                shade = np.where(part == LIT, 0.5 + 0.5 * draw / lit, shade)
            return part, np.where(part == GLASS, shade * (0.45 + 1.3 * draw * draw), shade)

        return parts


def sample_building(rng: np.random.Generator) -> tuple[np.ndarray, Facade]:
    """Colours of the parts and the division of a building's walls."""
    tone = rng.uniform(60, 225)
    # Plaster comes in every hue, brick red and leafy green and the blue of the sky among them.
    wall = tone + rng.normal(0, 8, 3) + rng.normal(0, 26) * np.array([1.0, 0.1, -0.9])
    wall = wall + (rng.random() < 0.3) * rng.normal(0, 35, 3)
    glass = np.array([78, 92, 108]) * rng.uniform(0.5, 1.7)
    trim = rng.uniform(60, 235) + rng.normal(0, 8, 3)
    shop, awning = rng.uniform(40, 200, 3), rng.uniform(30, 220, 3)
    roof = rng.uniform(45, 120) + rng.uniform(0, 60) * np.array([1.0, 0.3, 0.1])
    colours = palette(wall, trim, glass, wall * rng.uniform(0.75, 1.2), shop, awning, roof,
                      (215, 172, 108))  # fmt: skip
    return np.clip(colours, 8, 240), Facade(rng)


def _hedge(
    canvas: Canvas,
    light: Light,
    origin: np.ndarray,
    along: np.ndarray,
    height: float,
    rng: np.random.Generator,
) -> None:
    length = float(np.sqrt(along @ along))
    offset = rng.uniform(0, 250, 2)
    ragged = min(0.3, 0.25 + 0.02 * height)

    def parts(u: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        x, y = u * np.float32(length), v * np.float32(height)
        leaves = look_up(noise_tile(6), x * 7 + offset[0], y * 7 + offset[1])
        clumps = look_up(noise_tile(7), x * 4 + offset[1], y * 4 + offset[0])
        top = 1 - ragged * (0.5 + 0.25 * look_up(noise_tile(3), x * 6 + offset[0], y * 0))
        part = (v < top + 0.04 * leaves).astype(np.uint8)
        return part, np.clip(0.72 + 0.4 * v + 0.2 * leaves + 0.2 * clumps, 0.25, 1.7)

    colours = palette(sample_leaves(rng)) * light.all_round
    paint = Paint(colours, _GREENERY)
    canvas.panel(origin, along, UP * height, parts, paint, one_sided=True)
