"""One scene from one random generator: the picture and everything known about it."""

from dataclasses import dataclass

import numpy as np

from examples.cityscapes.synthetic import surfaces as s
from examples.cityscapes.synthetic.camera import Calibration, Camera, sample_camera
from examples.cityscapes.synthetic.canvas import Canvas
from examples.cityscapes.synthetic.disparity import encode, seen_by_both
from examples.cityscapes.synthetic.facades import draw_sides
from examples.cityscapes.synthetic.ground import draw_ground_and_sky
from examples.cityscapes.synthetic.layout import sample_layout
from examples.cityscapes.synthetic.light import Light, sample_light
from examples.cityscapes.synthetic.street import sample_street
from examples.cityscapes.synthetic.things import Painter

MIN_INSTANCES = 3
"""A scene with fewer instances in sight is drawn anew."""

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
    rng: np.random.Generator, size: tuple[int, int], calibration: Calibration
) -> Scene:
    """Draw a random street scene.

    Args:
        rng: Decides everything; the same state gives the same scene.
        size: Height and width of the image in pixels.
        calibration: The stereo camera at full resolution; it is scaled to ``size``.

    Returns:
        A scene with 3 to 25 instances in sight.
    """
    while True:
        scene = _render(rng, size, calibration)
        covered = np.unique(scene.instance_ids, return_counts=True)
        in_sight = (covered[0] >= 1000) & (covered[1] >= _SIGHT * scene.label_ids.size)
        if in_sight.sum() >= MIN_INSTANCES:
            return scene


def _render(rng: np.random.Generator, size: tuple[int, int], calibration: Calibration) -> Scene:
    camera = sample_camera(rng, size, calibration)
    street, light = sample_street(rng), sample_light(rng)
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
    return Scene(
        image=_develop(canvas, inverse_depth, light, rng),
        label_ids=label_ids,
        instance_ids=instance_ids,
        disparity=encode(disparity, valid),
        inverse_depth=inverse_depth,
        camera=camera,
    )


def _develop(
    canvas: Canvas, inverse_depth: np.ndarray, light: Light, rng: np.random.Generator
) -> np.ndarray:
    """The picture: what the canvas holds, seen through air, lens and sensor."""
    with np.errstate(divide="ignore"):
        clear = np.exp(-np.float32(light.haze_density) / inverse_depth)
    clear[inverse_depth == 0] = 1  # the sky has its own haze
    haze = light.haze * min(light.all_round.mean() * 1.2, 1.1)
    haze = haze.astype(np.float32)[:, None, None]
    colour = (canvas.colours() - haze) * clear + (haze + np.float32(0.5))
    noise = rng.standard_normal(colour.shape, dtype=np.float32)
    colour += noise * np.float32(rng.uniform(1.0, 5.0))
    return np.ascontiguousarray(np.clip(colour, 0, 255).astype(np.uint8).transpose(1, 2, 0))
