"""Procedural street scenes with a stereo camera, in the layout of CityScapes."""

from examples.rendered_scenes.render import Scene, render_scene
from examples.rendered_scenes.write import sample_scene, synthesize

__all__ = ["Scene", "render_scene", "sample_scene", "synthesize"]
