"""Noise tiles that repeat without a seam; every texture is a look-up in one of them."""

from functools import cache

import numpy as np

TILE = 256
"""Side of a tile; a power of two, so that wrapping around is a bitwise and."""


@cache
def noise_tile(seed: int, octaves: int = 5) -> np.ndarray:
    """Value noise of several octaves, periodic, standard deviation 1, shape (TILE, TILE)."""
    rng = np.random.default_rng([977, seed])
    total = np.zeros((TILE, TILE))
    for octave in range(octaves):
        cells = TILE >> (octaves - 1 - octave)
        grid = rng.standard_normal((cells, cells)) * (octaves - octave)
        total += _enlarge(_enlarge(grid).T).T
    total -= total.mean()
    tile = (total / total.std()).astype(np.float32)
    tile.flags.writeable = False
    return tile


@cache
def cell_tile() -> np.ndarray:
    """Uniform noise in [0, 1) without any structure, one draw a cell, shape (TILE, TILE)."""
    tile = np.random.default_rng(978).random((TILE, TILE), dtype=np.float32)
    tile.flags.writeable = False
    return tile


def look_up(tile: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values of ``tile`` at the cells that hold (x, y), wrapping around."""
    mask = TILE - 1
    return tile[y.astype(np.int32) & mask, x.astype(np.int32) & mask]


def _enlarge(grid: np.ndarray) -> np.ndarray:
    """Stretch axis 1 to TILE cells with smooth steps, wrapping around."""
    cells = grid.shape[1]
    position = np.arange(TILE) * cells / TILE
    left = position.astype(int)
    t = position - left
    t = t * t * (3 - 2 * t)
    return grid[:, left] * (1 - t) + grid[:, (left + 1) % cells] * t
