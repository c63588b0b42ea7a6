"""Sun, sky light and haze of one scene."""

from dataclasses import dataclass

import numpy as np

from examples.rendered_scenes.canvas import cross


@dataclass(frozen=True)
class Light:
    """Light of one scene; colours are factors on 0..255 unless noted, shape (3,)."""

    to_sun: np.ndarray
    """Unit vector in world axes."""
    sun: np.ndarray
    """Colour of direct sunlight."""
    ambient: np.ndarray
    """Colour of the light from all around."""
    haze: np.ndarray
    """Colour of the air far away, 0..255."""
    haze_density: float
    """Share of an object's colour lost per metre, for small distances."""
    cloudiness: float
    """0 is a blue sky, 1 is overcast."""
    shadow: float
    """How much darker the ground is in the sun's shadow, 0..1."""
    sky: np.ndarray | None = None
    """Colours of the sky above and at the horizon, 0..255, shape (2, 3); None for a sky by day."""
    dark: float = 1.0
    """Share of the light that is left where no lamp shines; 1 is day."""
    lit: float = 0.0
    """Share of the windows with a light behind them."""

    def on(self, edge_u: np.ndarray, edge_v: np.ndarray) -> np.ndarray:
        """Light on a panel with these edges, on the side from which u is right and v is up."""
        normal = np.array(cross(edge_u.tolist(), edge_v.tolist()))
        cosine = float(normal @ self.to_sun) / max(float(np.sqrt(normal @ normal)), 1e-9)
        return self.ambient + self.sun * max(cosine, 0.0)

    def lamp(self, colour: np.ndarray) -> np.ndarray:
        """Colour of a burning lamp: as bright as ever, however dark it is around it."""
        return colour * (0.95 / self.dark)

    @property
    def burning(self) -> bool:
        """Whether lamps are on."""
        return self.dark < 1

    @property
    def all_round(self) -> np.ndarray:
        """Light on what has no flat side: people, leaves, poles."""
        return self.ambient + 0.45 * self.sun


def sample_light(rng: np.random.Generator) -> Light:
    """From a blue sky with a low or high sun to a grey day."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.35, 1.1)
    to_sun = np.array(
        [
            np.cos(elevation) * np.sin(azimuth),
            -np.sin(elevation),
            np.cos(elevation) * np.cos(azimuth),
        ]
    )
    cloudiness = float(np.clip(rng.normal(0.5, 0.45), 0, 1))
    exposure = rng.uniform(0.85, 1.4)
    warmth = rng.normal(0, 0.07) * np.array([1.0, 0.1, -1.0])
    sun = exposure * (1 - cloudiness) * rng.uniform(0.5, 0.85) * np.array([1.08, 1.0, 0.86])
    ambient = exposure * (0.58 + 0.32 * cloudiness) * (np.array([0.95, 1.0, 1.06]) + warmth)
    haze = np.array([196, 204, 212]) * (1 + warmth) * rng.uniform(0.8, 1.1)
    return Light(
        to_sun=to_sun,
        sun=sun,
        ambient=ambient,
        haze=np.clip(haze, 0, 250),
        haze_density=float(rng.uniform(0.0005, 0.006) * (1 + 2 * (rng.random() < 0.15))),
        cloudiness=cloudiness,
        shadow=float(0.15 + 0.4 * (1 - cloudiness)),
    )
