"""Generated cases: an ellipsoid of tissues with a tumour in it, in four modalities."""

import numpy as np

from examples.brain_tumour.volumes import Size, Volume, prepare

FLUID, GREY, WHITE, CORE, OEDEMA, ENHANCING = range(1, 7)

#                     fluid grey  white core  oedema enhancing
INTENSITY = np.array(
    [
        [0.0, 0.20, 0.65, 0.50, 0.55, 1.00, 0.85],  # flair: fluid is dark, oedema bright
        [0.0, 0.15, 0.50, 0.75, 0.30, 0.42, 0.50],  # t1
        [0.0, 0.15, 0.50, 0.75, 0.30, 0.42, 1.10],  # t1ce: as t1, but the rim takes up contrast
        [0.0, 1.00, 0.65, 0.45, 0.80, 0.90, 0.70],  # t2: fluid and oedema are bright
    ]
)
"""Mean intensity by modality and tissue; the first column is outside the brain."""

LABEL_OF_TISSUE = np.array([0, 0, 0, 0, 1, 2, 4])

NOISE = 0.04
"""Standard deviation of the noise, independent by modality: no network can synthesise it."""


def generate(case: int, size: Size) -> Volume:
    """Return case number `case`, always the same one for the same number and size."""
    rng = np.random.default_rng(case)
    grid = np.stack(np.meshgrid(*(np.linspace(-1, 1, n) for n in size), indexing="ij"))
    tissue = draw_tissue(rng, grid)
    images = np.stack([render(rng, grid, tissue, means) for means in INTENSITY])
    return prepare(f"generated case {case}", images, LABEL_OF_TISSUE[tissue], size)


def draw_tissue(rng: np.random.Generator, grid: np.ndarray) -> np.ndarray:
    """Return the tissue of every voxel: nested ellipsoids with wavy surfaces."""
    tissue = np.zeros(grid.shape[1:], np.int64)
    centre, radii = rng.uniform(-0.05, 0.05, 3), rng.uniform(0.75, 0.9, 3)
    brain = distance(grid, centre, radii)
    tissue[brain < 1] = GREY
    tissue[brain + waves(rng, grid, 0.15) < 0.75] = WHITE
    for side in (-1, 1):  # the ventricles
        offset = centre + np.array([0.0, 0.0, side * 0.16])
        tissue[distance(grid, offset, rng.uniform((0.2, 0.25, 0.06), (0.3, 0.35, 0.1))) < 1] = FLUID

    direction = rng.normal(size=3)
    offset = centre + 0.4 * radii * direction / np.linalg.norm(direction)
    tumour = distance(grid, offset, rng.uniform(0.35, 0.55, 3)) + waves(rng, grid, 0.2)
    for radius, kind in ((1.0, OEDEMA), (0.7, ENHANCING), (rng.uniform(0.35, 0.5), CORE)):
        tissue[(tumour < radius) & (brain < 1)] = kind
    return tissue


def render(
    rng: np.random.Generator, grid: np.ndarray, tissue: np.ndarray, means: np.ndarray
) -> np.ndarray:
    """Return one modality: the tissues' intensities, a slow bias field and noise."""
    varied = means * rng.normal(1, 0.05, len(means))  # scanners and patients differ
    bias = 1 + waves(rng, grid, 0.1, frequency=1.5)
    image = varied[tissue] * bias + rng.normal(0, NOISE, tissue.shape)
    return np.where(tissue > 0, image, 0.0)


def distance(grid: np.ndarray, centre: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Return the distance from an ellipsoid's centre; 1 is its surface."""
    scaled = (grid - centre[:, None, None, None]) / radii[:, None, None, None]
    return np.sqrt((scaled**2).sum(axis=0))


def waves(
    rng: np.random.Generator, grid: np.ndarray, amplitude: float, frequency: float = 5.0
) -> np.ndarray:
    """Return a smooth random field, the mean of three plane waves."""
    field = np.zeros(grid.shape[1:])
    for _ in range(3):
        direction, phase = rng.normal(0, frequency, 3), rng.uniform(0, 2 * np.pi)
        field += np.sin(np.tensordot(direction, grid, axes=1) + phase)
    return amplitude * field / 3
