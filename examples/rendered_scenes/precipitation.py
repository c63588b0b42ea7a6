"""Rain and snow: wet ground that mirrors, snow that lies, and what is in the air."""

import numpy as np

from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.light import Light
from examples.rendered_scenes.night import View
from examples.rendered_scenes.texture import look_up, noise_tile

_BARE = (*s.GROUND, s.PERSON, s.RIDER, s.BICYCLE, s.MOTORCYCLE, s.SKY)
"""Classes without snow on their edges: what moves sheds it, and spokes are too thin to bear it."""


def lay_snow(
    colour: np.ndarray, view: View, label_ids: np.ndarray, light: Light, rng: np.random.Generator
) -> np.ndarray:
    """Cover the ground, foliage, and the upper edges of all that stands; roads less than grass."""
    x, _, z = view.points()
    offset = rng.uniform(4096, 8192, 2)
    patches = look_up(noise_tile(2), x * 4 + offset[0], z * 1.5 + offset[1])
    rows, columns = np.indices(label_ids.shape)
    clumps = look_up(noise_tile(6), columns * 2 + offset[1], rows * 2 + offset[0])
    depth = rng.uniform(0.25, 1.0)
    ruts = np.cos(x * (2 * np.pi / rng.uniform(1.5, 2.0)) + offset[0])
    cover = np.zeros(label_ids.shape, np.float32)
    for surface, amount in (
        (s.ROAD, 0.9 * depth - 0.35 + 0.22 * patches + 0.2 * ruts),
        (s.SIDEWALK, 0.45 + 0.4 * depth + 0.18 * patches),
        (s.TERRAIN, 0.7 + 0.3 * depth + 0.1 * patches),
        (s.VEGETATION, 0.2 + 0.3 * depth + 0.25 * clumps),
    ):
        cover = np.where(label_ids == surface, amount, cover)
    cover = np.maximum(cover, _caps(view, label_ids, 0.05 + 0.12 * depth))
    cover = np.clip(cover, 0, 0.94)
    white = (light.all_round * np.array([224, 230, 240])).astype(np.float32)[:, None, None]
    grain = 1 + 0.03 * clumps.astype(np.float32)
    return colour + cover * (white * grain - colour)


def _caps(view: View, label_ids: np.ndarray, thickness: float) -> np.ndarray:
    """1 within ``thickness`` metres below an edge behind which something farther begins."""
    near = view.inverse_depth
    below_edge = np.zeros(near.shape, bool)
    below_edge[1:] = near[1:] > 1.15 * near[:-1] + 0.003
    below_edge &= ~np.isin(label_ids, _BARE)
    rows_thick = thickness * view.camera.fy * near
    caps = np.zeros(near.shape, np.float32)
    for k in range(int(min(rows_thick.max(), 12)) + 1):
        reached = below_edge[: len(near) - k] & (rows_thick[k:] > k)
        caps[k:][reached] = np.clip(rows_thick[k:][reached] - k, 0, 1)
    return caps


def wet_ground(
    colour: np.ndarray, view: View, label_ids: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Darken the ground, and mirror in it what stands behind: sharply in puddles."""
    x, _, z = view.points()
    offset = rng.uniform(4096, 8192, 2)
    puddles = look_up(noise_tile(2), x * 3.5 + offset[0], z * 1.4 + offset[1])
    ripples = look_up(noise_tile(1), x * 16 + offset[1], z * 16 + offset[0])
    ground = np.isin(label_ids, s.GROUND)
    row = np.arange(len(ground), dtype=np.int32)[:, None]
    # In each column the ground mirrors about the row where what stands on it begins.
    edge = np.maximum.accumulate(np.where(ground, -1, row), axis=0)
    wave = (0.012 * len(ground)) * ripples
    source = np.clip(2 * edge - row + wave, 0, len(ground) - 1).astype(np.int32)
    mirrored = np.take_along_axis(colour, source[None], axis=1)
    # Water mirrors more at a flatter viewing angle.
    grazing = np.clip(1.15 - 2.5 * view.inverse_depth, 0.35, 1)
    share = np.clip(0.3 + 0.16 * puddles, 0.08, 0.75) * grazing * rng.uniform(0.7, 1.2)
    share = np.where(label_ids == s.TERRAIN, 0.25 * share, share)
    share = np.where(ground & (edge >= 0), share, 0).astype(np.float32)
    darker = np.where(ground, np.float32(0.68), np.float32(1))
    return colour * darker * (1 - share) + mirrored * share


def falling_rain(colour: np.ndarray, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """Streaks across the picture, all at about the same slant."""
    height, width = colour.shape[1:]
    count = int(height * width * rng.uniform(0.002, 0.006))
    top, left = rng.uniform(-0.1 * height, height, count), rng.uniform(0, width, count)
    length = rng.uniform(0.03, 0.11, count) * height
    slant = rng.normal(0, 0.15) + rng.normal(0, 0.03, count)
    alpha = rng.uniform(0.08, 0.3, count)
    for step in range(int(length.max()) + 1):
        y, x = (top + step).astype(int), (left + slant * step).astype(int)
        use = (step <= length) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        here = colour[:, y[use], x[use]]
        colour[:, y[use], x[use]] = here + alpha[use] * (200 * brightness - here)
    return colour


def falling_snow(colour: np.ndarray, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """Flakes of one to three pixels (in an image of 128 rows), most of them small."""
    height, width = colour.shape[1:]
    share = rng.uniform(0.003, 0.014)
    for size, part in ((1, 0.7), (2, 0.24), (3, 0.06)):
        side = max(1, round(size * height / 128))
        count = int(share * part * height * width / side)
        y, x = rng.integers(0, height, count), rng.integers(0, width, count)
        alpha = rng.uniform(0.35, 0.9, count)
        for dy in range(side):
            for dx in range(side):
                inside = (y + dy < height) & (x + dx < width)
                place = y[inside] + dy, x[inside] + dx
                here = colour[:, place[0], place[1]]
                colour[:, place[0], place[1]] = here + alpha[inside] * (240 * brightness - here)
    return colour
