"""Road, sidewalks and sky: what is seen where nothing stands."""

import numpy as np

from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.canvas import Canvas, Paint
from examples.rendered_scenes.furniture import sample_leaves
from examples.rendered_scenes.light import Light
from examples.rendered_scenes.sprites import palette, surfaces
from examples.rendered_scenes.street import Street
from examples.rendered_scenes.texture import look_up, noise_tile

_SKY_STEPS, _CLOUD_STEPS = 25, 10

ASPHALT, PATCH, MARKING, SLAB, JOINT, CURB, RAIL, GRASS = range(1, 9)


def draw_ground_and_sky(
    canvas: Canvas, street: Street, light: Light, rng: np.random.Generator
) -> None:
    """Fill every sample that nothing covers yet."""
    free = canvas.uncovered()
    columns = canvas.shape[1]
    first_below = int(np.searchsorted(canvas.row, canvas.camera.horizon + 0.02)) * columns
    split = int(np.searchsorted(free, first_below))
    _sky(canvas, free[:split], light, rng)
    _ground(canvas, free[split:], street, light, rng)


def _rays(canvas: Canvas, sample: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    row, column = np.divmod(sample.astype(np.int32), np.int32(canvas.shape[1]))
    row, column = canvas.row[row], canvas.column[column]
    a = canvas.rays.astype(np.float32)
    # Without roll the vertical component does not depend on the column.
    return (
        a[0, 0] * column + a[0, 1] * row + a[0, 2],
        a[1, 1] * row + a[1, 2],
        a[2, 0] * column + a[2, 1] * row + a[2, 2],
    )


def _ground(
    canvas: Canvas, sample: np.ndarray, street: Street, light: Light, rng: np.random.Generator
) -> None:
    ray_x, ray_y, ray_z = _rays(canvas, sample)
    inverse_depth = ray_y / np.float32(canvas.camera.height)
    x, z = ray_x / inverse_depth, ray_z / inverse_depth
    lateral = street.lateral(x, z)
    road = (lateral > street.left) & (lateral < street.right)
    offset = rng.uniform(0, 256, 2).astype(np.float32)
    fine = look_up(noise_tile(1), x * 14 + offset[0] + 4096, z * 14 + offset[1] + 4096)
    coarse = look_up(noise_tile(2), x * 3.1 + offset[1] + 4096, z * 1.3 + offset[0] + 4096)

    part = np.where(road, ASPHALT, SLAB).astype(np.uint8)
    part[road & (coarse > rng.uniform(0.9, 2.5))] = PATCH
    slab = float(rng.uniform(0.5, 1.6))
    joint = (np.abs(lateral / slab % 1 - 0.5) < 0.04) | (np.abs(z / slab % 1 - 0.5) < 0.04)
    part[~road & joint & (inverse_depth > 0.05)] = JOINT
    grass = _on_grass(street, lateral)
    part[grass] = GRASS
    curb = np.abs(lateral - street.left) < 0.18, np.abs(lateral - street.right) < 0.18
    part[~road & (curb[0] | curb[1])] = CURB
    plain = road
    if street.crossing is not None:
        away = np.abs(z - street.crossing.z) - street.crossing.half_width
        across = away < 0
        part[across & ~road] = ASPHALT
        grass &= ~across
        part[~road & (away > 0) & (away < 0.2)] = CURB
        plain = road & (away > 1.0)
    phase = float(rng.uniform(0, 6))
    for line in street.lines:
        part[plain & (np.abs(lateral - line) < 0.08) & ((z + phase) % 6 < 3.2)] = MARKING
    if street.zebra is not None:
        on_zebra = road & (np.abs(z - street.zebra - 1.6) < 1.6)
        part[on_zebra & (lateral % 1.0 < 0.5)] = MARKING
    if street.rails is not None:
        gauge = np.abs(np.abs(lateral - street.rails) - 0.72)
        part[road & (gauge < 0.09)] = RAIL

    # Grain averages out with distance; without this, far ground glitters.
    near = np.minimum(inverse_depth * 12, 1)
    shade = 1 + (0.10 * near) * fine + 0.06 * coarse
    # Blades stand in tufts, darker between them, however far away.
    shade[grass] += (0.16 * look_up(noise_tile(6), x * 22 + offset[1] + 8192, z * 5 + 4096))[grass]
    wobble = 0.5 * coarse
    for side, wall in ((1, street.right_wall), (-1, street.left_wall)):
        # The sun behind the buildings of one side: their shadow covers that side of the street.
        reach = 8.0 * side * light.to_sun[0] / max(-light.to_sun[1], 0.2)
        if reach > 0.5:
            shade[side * (wall - lateral) < reach + wobble] *= 1 - light.shadow

    grey = rng.uniform(62, 150)
    asphalt = np.full(3, grey) + rng.normal(0, 7, 3)
    tone = rng.uniform(0.75, 1.35)
    slabs = np.clip(grey * tone + rng.normal(0, 14, 3), 45, 200)
    marking = np.full(3, rng.uniform(150, 235))
    colours = palette(asphalt, asphalt * rng.uniform(0.72, 1.2), marking, slabs, slabs * 0.8,
                      slabs * rng.uniform(0.85, 1.3), asphalt * rng.uniform(0.45, 1.5),
                      sample_leaves(rng))  # fmt: skip
    colours = np.minimum(colours, 240) * light.on(
        np.array([1.0, 0.0, 0.0]), np.array([0.0, 0.0, 1.0])
    )
    kinds = surfaces(s.ROAD, s.ROAD, s.ROAD, s.SIDEWALK, s.SIDEWALK, s.SIDEWALK,
                     s.ROAD, s.TERRAIN)  # fmt: skip
    canvas.put(sample, inverse_depth, part, shade, Paint(colours, kinds))


def _on_grass(street: Street, lateral: np.ndarray) -> np.ndarray:
    grass = np.zeros(lateral.shape, bool)
    for low, high in (street.left_verge, street.right_verge):
        if low < high:
            grass |= (lateral > low) & (lateral < high)
    if street.left_lawn:
        grass |= lateral < street.left_wall
    if street.right_lawn:
        grass |= lateral > street.right_wall
    return grass


def _sky(canvas: Canvas, sample: np.ndarray, light: Light, rng: np.random.Generator) -> None:
    ray_x, ray_y, ray_z = _rays(canvas, sample)
    up = np.maximum(-ray_y, 0.0) + np.float32(0.05)
    offset = rng.uniform(0, 256, 2).astype(np.float32)
    stretch = float(rng.uniform(15, 45))
    cloud = look_up(noise_tile(3), ray_x / up * stretch + offset[0] + 4096,
                    ray_z / up * stretch + offset[1] + 4096)  # fmt: skip
    brightness = float(np.clip(light.ambient.mean() * 1.25, 0.6, 1.12))
    grey = rng.uniform(120, 235)
    overcast = np.full(3, grey) + rng.normal(0, 6, 3)
    blue = np.array([92, 142, 205]) * rng.uniform(0.75, 1.15) + rng.normal(0, 8, 3)
    zenith = light.cloudiness * overcast + (1 - light.cloudiness) * blue
    low = 0.5 * zenith + 0.5 * light.haze
    white = overcast * 0.4 + 145
    if light.sky is not None:
        brightness, (zenith, low) = 1.0, light.sky
        white = 0.55 * low + 0.45 * zenith
    # A palette of every step up the sky, for every thickness of cloud.
    climb = np.linspace(0, 1, _SKY_STEPS)[:, None, None]
    cover = np.linspace(0, 0.8, _CLOUD_STEPS)[:, None]
    mixed = (low * (1 - climb) + zenith * climb) * (1 - cover) + white * cover
    colours = palette(*(mixed.reshape(-1, 3) * brightness))
    step = np.minimum(up * 3.2, 0.999) * _SKY_STEPS
    thickness = np.clip(0.45 * cloud + (1.3 * light.cloudiness - 0.55), 0, 0.999) * _CLOUD_STEPS
    part = 1 + step.astype(np.uint8) * np.uint8(_CLOUD_STEPS) + thickness.astype(np.uint8)
    shade = 1 + np.float32(0.03 * light.cloudiness) * cloud
    canvas.put(sample, 0.0, part, shade, Paint(colours, surfaces(*[s.SKY] * (len(colours) - 1))))
