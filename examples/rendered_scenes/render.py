"""One scene from one random generator: the picture and everything known about it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from examples.rendered_scenes import surfaces as s
from examples.rendered_scenes.camera import Calibration, Camera, sample_camera
from examples.rendered_scenes.canvas import Canvas
from examples.rendered_scenes.conditions import Conditions, light_under
from examples.rendered_scenes.disparity import encode, seen_by_both
from examples.rendered_scenes.facades import draw_sides
from examples.rendered_scenes.ground import draw_ground_and_sky
from examples.rendered_scenes.layout import sample_layout
from examples.rendered_scenes.light import Light, sample_light
from examples.rendered_scenes.night import View, illuminate
from examples.rendered_scenes.precipitation import (
    falling_rain,
    falling_snow,
    lay_snow,
    wet_ground,
)
from examples.rendered_scenes.street import sample_street
from examples.rendered_scenes.things import Painter

MIN_INSTANCES = 3
"""A scene with fewer instances in sight is drawn again."""

CLEAR_DAY = Conditions()

_FALLING = {"rain": falling_rain, "snow": falling_snow}

_SIGHT = 1 / 4096
"""Share of the image that an instance must cover to count as in sight."""


@dataclass(frozen=True)
class Scene:
    """A street scene; height and width are the camera's ``size``."""

    image: np.ndarray
    """RGB, uint8, shape (H, W, 3)."""
    label_ids: np.ndarray
    """Official label ids, uint8, shape (H, W)."""
    instance_ids: np.ndarray
    """Official instance ids, uint16, shape (H, W): id * 1000 + k for things, the label id else."""
    disparity: np.ndarray
    """Raw values of the disparity file, uint16, shape (H, W): 0 is invalid, p is (p - 1)/256 px."""
    inverse_depth: np.ndarray
    """True inverse depth in 1/m, without gaps, float32, shape (H, W); 0 in the sky."""
    camera: Camera


def render_scene(
    rng: np.random.Generator,
    size: tuple[int, int],
    calibration: Calibration,
    conditions: Conditions = CLEAR_DAY,
    conditions_seed: Sequence[int] = (0,),
    *,
    has_rare: bool = True,
) -> Scene:
    """Draw a random street scene.

    Args:
        rng: Decides everything but what follows from the conditions; the same state gives the same
            scene, under any conditions.
        size: Height and width of the image in pixels.
        calibration: The stereo camera at full resolution; it is scaled to ``size``.
        conditions: Weather and time of day; they change the image only.
        conditions_seed: Decides how thick the fog is, where a drop falls and the like.
        has_rare: Whether the rarer classes may be there.

    Returns:
        A scene with 3 to 25 instances in sight.
    """
    while True:
        # A generator of their own: the street must not depend on how many drops there are.
        weather_rng = np.random.default_rng(conditions_seed)
        scene = _render(rng, size, calibration, conditions, weather_rng, has_rare)
        covered = np.unique(scene.instance_ids, return_counts=True)
        in_sight = (covered[0] >= 1000) & (covered[1] >= _SIGHT * scene.label_ids.size)
        if in_sight.sum() >= MIN_INSTANCES:
            return scene


def _render(
    rng: np.random.Generator,
    size: tuple[int, int],
    calibration: Calibration,
    conditions: Conditions,
    weather_rng: np.random.Generator,
    has_rare: bool,
) -> Scene:
    camera = sample_camera(rng, size, calibration)
    street = sample_street(rng, has_rare=has_rare)
    light = light_under(conditions, sample_light(rng), weather_rng)
    canvas = Canvas(camera)
    painter = Painter(canvas, light, rng)
    painter.draw(sample_layout(rng, camera, street))
    draw_sides(canvas, street, light, rng)
    draw_ground_and_sky(canvas, street, light, rng)
    painter.draw_shadows()

    surface, inverse_depth = canvas.at_pixels()
    label_ids, instance_ids = s.ids_from_surfaces(surface, painter.classes)
    disparity = inverse_depth * np.float32(camera.fx * camera.baseline)
    # Matching finds nothing in the sky; the files leave it invalid.
    valid = seen_by_both(disparity) & (label_ids != s.SKY)
    view = View(camera, inverse_depth)
    colour = canvas.colours()
    if conditions.weather == "snow":
        colour = lay_snow(colour, view, label_ids, light, weather_rng)
    if light.burning:
        colour = illuminate(colour, view, light, street, painter.lamps)
    if conditions.weather == "rain":
        colour = wet_ground(colour, view, label_ids, weather_rng)
    colour = _through_air(colour, inverse_depth, light)
    if conditions.weather in _FALLING:
        brightness = min(1.0, light.dark + 0.25)
        colour = _FALLING[conditions.weather](colour, brightness, weather_rng)
    return Scene(
        image=_expose(colour, rng),
        label_ids=label_ids,
        instance_ids=instance_ids,
        disparity=encode(disparity, valid),
        inverse_depth=inverse_depth,
        camera=camera,
    )


def _through_air(colour: np.ndarray, inverse_depth: np.ndarray, light: Light) -> np.ndarray:
    with np.errstate(divide="ignore"):
        clear = np.exp(-np.float32(light.haze_density) / inverse_depth)
    haze, sky = light.haze, inverse_depth == 0
    # Pixels on the outline of what stands before the sky would stay dark in a fog that is not in
    # front of the sky too; the sky of a clear day has its own haze.
    clear[sky] = 1 if light.sky is None else np.exp(-100 * light.haze_density)
    if light.sky is None:
        haze = haze * min(light.all_round.mean() * 1.2, 1.1)
    haze = haze.astype(np.float32)[:, None, None]
    return (colour - haze) * clear + haze


def _expose(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    noise = rng.standard_normal(colour.shape, dtype=np.float32)
    colour = colour + (noise * np.float32(rng.uniform(1.0, 5.0)) + np.float32(0.5))
    return np.ascontiguousarray(np.clip(colour, 0, 255).astype(np.uint8).transpose(1, 2, 0))
