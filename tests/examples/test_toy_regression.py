"""The toy finds both noises from every start, and its figure is written."""

import math
import subprocess
import sys

import pytest
import torch

from examples.toy_regression import make_data, plot, train


def test_data_is_that_of_the_report():
    x, targets = make_data()
    line = torch.cat([x, torch.ones_like(x)], dim=1)
    for task, expected in {"y1": 9.680, "y2": 0.9545}.items():
        y = targets[task][:, None]
        residual = y - line @ torch.linalg.lstsq(line, y).solution
        assert residual.square().mean().sqrt().item() == pytest.approx(expected, abs=5e-4)


# From 4.48 the sigma of y1 rises to 10, and that of y2 falls to 1; 20 is above both.
@pytest.mark.parametrize(("start", "epochs"), [(4.48, 150), (20.0, 250)])
def test_sigmas_are_within_one_percent_of_the_residuals_from_either_side(start, epochs):
    run = train(start, epochs)
    assert len(run.loss) == epochs
    assert all(abs(error) < 0.01 for error in run.errors().values()), run.errors()
    assert run.residual_rms["y1"] == pytest.approx(9.68, rel=0.02)
    assert run.residual_rms["y2"] == pytest.approx(0.9545, rel=0.02)


def test_figure_is_written(tmp_path):
    plot([train(1.0, 1), train(4.48, 1)], tmp_path / "new" / "toy.png")
    assert (tmp_path / "new" / "toy.png").stat().st_size > 10_000


def test_minimal_example_recovers_its_noise():
    run = subprocess.run(
        [sys.executable, "examples/minimal.py"], capture_output=True, text=True, check=True
    )
    last = run.stdout.splitlines()[-1]
    sigma = float(last.split("'price': ")[1].split(",")[0])
    assert math.isclose(sigma, 2, rel_tol=0.1)
