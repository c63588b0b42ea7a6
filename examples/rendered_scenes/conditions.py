"""Weather and time of day: which ones there are, and the light that belongs to them."""

from dataclasses import dataclass, replace

import numpy as np

from examples.rendered_scenes.light import Light

WEATHERS = ("clear", "rain", "fog", "snow")
TIMES = ("day", "dusk", "night")
MIXED = "mixed"


@dataclass(frozen=True)
class Conditions:
    """The weather and the time of day of one scene; they change its picture and nothing else."""

    weather: str = "clear"
    """One of ``WEATHERS``."""
    time: str = "day"
    """One of ``TIMES``."""


def sample_conditions(rng: np.random.Generator, weather: str, time: str) -> Conditions:
    """The given weather and time; in place of ``"mixed"``, any of them with equal probability."""
    # Both are always drawn: asking for a weather must not change the times.
    drawn = WEATHERS[rng.integers(len(WEATHERS))], TIMES[rng.integers(len(TIMES))]
    return Conditions(
        weather=drawn[0] if weather == MIXED else weather,
        time=drawn[1] if time == MIXED else time,
    )


def light_under(conditions: Conditions, light: Light, rng: np.random.Generator) -> Light:
    """The light of a clear day as it is under other conditions."""
    thickness = rng.uniform(0, 1)
    level = float(rng.uniform(0.9, 1.1))
    if conditions.weather != "clear":
        light = _overcast(conditions.weather, light, thickness)
    if conditions.time == "dusk":
        return _dusk(light, level)
    return _night(light, level) if conditions.time == "night" else light


_OVERCAST = {  # light on things, grey of the sky above and at the horizon, density of the air
    "rain": (0.78, 118, 158, (0.006, 0.016)),
    "fog": (0.92, 205, 198, (0.03, 0.09)),
    "snow": (0.98, 186, 206, (0.008, 0.022)),
}


def _overcast(weather: str, light: Light, thickness: float) -> Light:
    brightness, zenith, horizon, (thin, thick) = _OVERCAST[weather]
    grey = np.array([0.97, 1.0, 1.03])
    return replace(
        light,
        sun=np.zeros(3),
        ambient=brightness * grey * (0.8 + 0.2 * light.ambient.mean()),
        haze=horizon * grey,
        haze_density=thin + (thick - thin) * thickness,
        cloudiness=1.0,
        shadow=0.06,
        sky=np.stack([zenith * grey, horizon * grey]),
    )


def _exposure(light: Light) -> float:
    # Nothing may be as bright as a burning lamp, or `night` takes it for one.
    return float(np.clip(light.ambient.mean(), 0.65, 0.95))


def _dusk(light: Light, level: float) -> Light:
    clear = 1 - light.cloudiness
    zenith = clear * np.array([52, 68, 118]) + (1 - clear) * np.array([82, 88, 106])
    horizon = clear * np.array([226, 150, 98]) + (1 - clear) * np.array([132, 124, 126])
    dark = 0.5 * level
    return replace(
        light,
        sun=clear * np.array([0.5, 0.25, 0.1]),
        ambient=np.array([0.78, 0.86, 1.1]) * _exposure(light),
        haze=0.4 * zenith + 0.6 * horizon,
        shadow=0.1,
        sky=np.stack([zenith, horizon]),
        dark=dark,
        lit=0.35,
    )


def _night(light: Light, level: float) -> Light:
    # Mist is lit by the lamps of the town: the thicker, the brighter.
    glow = 14 + 1000 * min(light.haze_density, 0.06)
    return replace(
        light,
        sun=np.zeros(3),
        ambient=np.array([0.94, 0.97, 1.09]) * _exposure(light),
        haze=glow * np.array([1.12, 1.0, 0.86]),
        cloudiness=1.0,
        shadow=0.05,
        sky=np.stack(
            [0.45 * glow * np.array([0.8, 0.95, 1.35]), glow * np.array([1.2, 1.0, 0.85])]
        ),
        dark=0.13 * level,
        lit=0.28,
    )
