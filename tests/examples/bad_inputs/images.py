"""Rows about images and label files."""

from tests.examples.bad_inputs.row import Accepted, Refused

IMAGES: list[Refused | Accepted] = []
