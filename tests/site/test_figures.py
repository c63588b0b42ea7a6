"""Figures are as wide as the text, so their letters keep their size, and suit a dark page."""

import pytest
from PIL import Image

from tests.site.conftest import ROOT

FIGURES = ["demo_training", "toy_regression", "two_tasks", "weights"]
TEXT_IN_PIXELS = 736  # at 1280 pixels, where a point is 96/72 of a pixel


@pytest.fixture(params=FIGURES)
def figure(request):
    with Image.open(ROOT / "docs" / "images" / f"{request.param}.png") as opened:
        opened.load()
        return opened


@pytest.mark.parametrize("name", [*FIGURES, "demo_predictions"])
def test_letters_of_a_figure_are_shown_at_the_size_that_they_were_given(name):
    with Image.open(ROOT / "docs" / "images" / f"{name}.png") as figure:
        inches = figure.width / figure.info["dpi"][0]
    shown = TEXT_IN_PIXELS / (96 * inches)
    assert 0.95 < shown < 1.1


def test_the_paper_of_a_figure_is_transparent_and_its_ink_readable_on_white_and_black(figure):
    pixels = figure.convert("RGBA")
    corners = [(0, 0), (0, pixels.height - 1), (pixels.width - 1, 0)]
    assert [pixels.getpixel(corner)[3] for corner in corners] == [0, 0, 0]
    ink = {color[:3] for _, color in pixels.getcolors(1 << 24) if color[3] == 255}
    brightness = [sum(color) / 3 for color in ink]
    assert min(brightness) > 40
    assert max(brightness) < 200
