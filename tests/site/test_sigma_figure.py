"""The figure that trains in the page about sigma computes what the library does."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.site.browser import browser, needs_chromium
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

SCRIPT = Path(__file__).parents[2] / "docs" / "_static" / "sigma_figure.js"
SETTINGS = [
    {"start": 100.0, "rate": 0.003, "noiseA": 0.3, "noiseB": 1.0, "unitsB": 1.0},
    {"unitsB": 1000.0, "form": "symmetric", "rate": 0.03, "noiseA": 0.3, "noiseB": 1.0},
    {"estimator": "closed_form", "noiseA": 0.03, "noiseB": 0.1, "unitsB": 0.01},
]

pytestmark = needs_chromium


@pytest.fixture(scope="module")
def simulate(tmp_path_factory):
    """Return the function of the page."""
    folder = tmp_path_factory.mktemp("figure")
    page = folder / "page.html"
    page.write_text(f"<script>{SCRIPT.read_text()}</script>")
    with browser(folder / "profile") as opened:
        opened.open(page.as_uri())
        yield lambda settings: opened.evaluate(f"sigmaFigure.simulate({json.dumps(settings)})")


def train(settings, steps):
    """Train the same two tasks with the library, and return weights, sigmas, total and number."""
    heads = {task: GaussianHead(init_sigma=settings.get("start")) for task in ("a", "b")}
    loss_fn = UncertaintyWeightedLoss(
        heads,
        form=settings.get("form", "nll"),
        estimator=settings.get("estimator", "learned"),
    )
    number = torch.zeros((), requires_grad=True)
    groups = loss_fn.param_groups(lr=settings.get("rate", 0.01))
    optimizer = torch.optim.Adam([{"params": [number], "lr": 0.01}, *groups])
    for _ in range(steps):
        weights, sigmas, before = loss_fn.weights(), loss_fn.sigmas(), number.item()
        losses = loss_fn(
            {
                "a": (number - 1).square() + settings["noiseA"] ** 2,
                "b": settings["unitsB"] ** 2 * ((number - 2).square() + settings["noiseB"] ** 2),
            }
        )
        if settings.get("estimator") == "closed_form":
            weights, sigmas = loss_fn.weights(), loss_fn.sigmas()
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
    return weights, sigmas, losses.total.item(), before


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_end_of_its_curves_is_that_of_the_library(simulate, settings):
    found = simulate({**settings, "steps": 600})
    weights, sigmas, total, number = train(settings, 600)
    for task in ("a", "b"):
        assert math.isclose(found[task]["weight"][-1], weights[task].item(), rel_tol=1e-3)
        assert math.isclose(found[task]["sigma"][-1], sigmas[task].item(), rel_tol=1e-3)
    assert math.isclose(found["total"][-1], total, rel_tol=1e-3)
    assert math.isclose(found["number"][-1], number, rel_tol=1e-3)


def test_its_lessons_are_true(simulate):
    plain, far = simulate({}), simulate({"start": 100, "rate": 0.003})
    assert math.isclose(plain["a"]["weight"][-1], plain["a"]["bestWeight"][-1], rel_tol=0.01)
    assert far["a"]["weight"][-1] < 0.1 * far["a"]["bestWeight"][-1]
    units, equal = simulate({"unitsB": 1000}), simulate({"unitsB": 1000, "estimator": "fixed"})
    assert math.isclose(units["number"][-1], plain["number"][-1], abs_tol=0.01)
    assert abs(equal["number"][-1] - 2) < 0.01  # what the task with the large units says
    small = simulate({"noiseA": 0.03, "noiseB": 0.1, "estimator": "closed_form"})
    assert small["total"][-1] < 0 < min(small["a"]["weight"])
