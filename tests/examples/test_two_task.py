"""The two-task protocol in training and evaluation, and the weights that its table compares."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats
from sklearn.metrics import accuracy_score, jaccard_score

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig, load_config, new_config
from examples.cityscapes.data.dataset import Batch
from examples.cityscapes.evaluation.two_task_metrics import TwoTaskMetrics
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.training.log import read_log
from examples.cityscapes.training.losses import build_loss, draw_weights
from examples.cityscapes.training.train import train
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY, assert_same_runs
from tests.examples.tiny_tree import write_tree

TWO_TASK = {**TINY, "protocol": "two-task", "tasks": ("semantic", "depth")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(tree, tmp_path):
    return TrainConfig(data=tree, out=tmp_path / "run", **TWO_TASK)


def measured(classes, truth, depth, true_depth):
    """Return the figures of maps of one row of pixels, given as lists."""
    row = torch.tensor(true_depth, dtype=torch.float32).view(1, 1, -1)
    batch = Batch(
        image=torch.zeros(1, 3, 1, len(truth)),
        semantic=torch.tensor(truth, dtype=torch.uint8).view(1, 1, -1),
        instances=None,
        centres=None,
        disparity=row,
        disparity_at_1m=torch.tensor([math.nan]),
    )
    metrics = TwoTaskMetrics()
    predicted = torch.tensor(depth, dtype=torch.float32).view(1, 1, 1, -1)
    metrics.add({"semantic": torch.tensor(classes).view(1, 1, -1), "depth": predicted}, batch)
    return metrics.compute()


# The figures


@given(
    pixels=st.lists(
        st.tuples(st.integers(0, 6), st.sampled_from([0, 1, 4, 6, 255])), min_size=5, max_size=30
    )
)
def test_classes_are_scored_as_by_scikit_learn(pixels):
    classes, truth = (np.array(each) for each in zip(*pixels, strict=True))
    nothing = [math.nan] * len(truth)
    found = measured(classes.tolist(), truth.tolist(), [0.0] * len(truth), nothing)
    counts = truth != 255
    if not counts.any():
        assert found["semantic_iou"] is found["semantic_pixel_accuracy"] is None
        return
    expected = jaccard_score(truth[counts], classes[counts], average="macro")
    assert found["semantic_iou"] == pytest.approx(expected)
    expected = accuracy_score(truth[counts], classes[counts])
    assert found["semantic_pixel_accuracy"] == pytest.approx(expected)
    assert found["depth_abs_error"] is found["depth_rel_error"] is None


def test_depth_errors_are_means_over_valid_pixels():
    found = measured([0] * 4, [255] * 4, [1.0, 3.0, 9.0, 0.5], [2.0, 4.0, math.nan, 0.25])
    # By hand: errors 1, 1 and 0.25; over the truth 1/2, 1/4 and 1.
    assert found["depth_abs_error"] == pytest.approx(2.25 / 3)
    assert found["depth_rel_error"] == pytest.approx(1.75 / 3)
    assert found["semantic_iou"] is None


def test_the_network_has_a_logit_for_each_of_the_7_classes(config):
    outputs = SceneNet(config).eval()(torch.zeros(1, 3, 16, 32, dtype=torch.uint8))
    assert {task: y.shape[1] for task, y in outputs.items()} == {"semantic": 7, "depth": 1}


def test_the_protocol_decides_the_tasks_where_none_are_given(tmp_path):
    given = {"data": tmp_path, "out": tmp_path, "protocol": "two-task"}
    assert new_config(given).tasks == ("semantic", "depth")
    assert new_config({**given, "tasks": ("depth",)}).tasks == ("depth",)
    with pytest.raises(InputError, match="--tasks: unknown 'instance'"):
        new_config({**given, "tasks": ("instance", "depth")})
    with pytest.raises(InputError, match="--protocol: unknown 'one-task'"):
        new_config({**given, "protocol": "one-task"})


def test_a_run_validates_and_evaluates_by_the_figures_of_the_protocol(config, tree, capsys):
    train(dataclasses.replace(config, eval_every=4, tensorboard=True))
    lines = read_log(config.out / "validation.jsonl")
    assert [line["iteration"] for line in lines] == [4, 8]
    last = lines[-1]
    expected = math.sqrt((1 - last["semantic_iou"]) * last["depth_abs_error"])
    assert last["selection_error"] == pytest.approx(expected)

    assert main(["evaluate", "--run", str(config.out), "--data", str(tree)]) == 0
    metrics = json.loads((config.out / "metrics.json").read_text())
    assert metrics["semantic_iou"] == pytest.approx(last["semantic_iou"])
    assert metrics["depth_abs_error"] == pytest.approx(last["depth_abs_error"], rel=1e-5)
    assert metrics["position_prior"]["depth_rel_error"] > 0
    table = capsys.readouterr().out
    for word in ("semantic_pixel_accuracy", "depth_rel_error", "position_prior", "vehicle"):
        assert word in table


def test_commands_for_three_tasks_refuse_the_run_in_a_line(config, tree, tmp_path, capsys):
    train(config)
    run = ["--run", str(config.out)]
    for command in (
        ["report", *run],
        ["evaluate", *run, "--data", str(tree), "--official"],
    ):
        capsys.readouterr()
        assert main(command) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "needs a run with --protocol three-task" in error


def test_predictions_have_seven_classes_in_the_colours_of_their_categories(config, tree, tmp_path):
    train(config)
    image = next((tree / "leftImg8bit/val/town").iterdir())
    command = ["predict", "--run", config.out, "--image", image, "--out", tmp_path / "out"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/classes.png").write_bytes(b"the key of another network")
    assert main([*map(str, command), "--device", "cpu"]) == 0
    with np.load(tmp_path / f"out/{image.stem}_arrays.npz") as arrays:
        assert sorted(arrays) == ["classes", "image", "inverse_depth"]
        classes, pixels = arrays["classes"], arrays["image"].astype(int)
    assert classes.max() < 7
    # Official colours: road, building, pole, vegetation, sky, person, car.
    colors = [(128, 64, 128), (70, 70, 70), (153, 153, 153), (107, 142, 35), (70, 130, 180)]
    colors = np.array([*colors, (220, 20, 60), (0, 0, 142)])
    with Image.open(tmp_path / f"out/{image.stem}_overlay.png") as overlay:
        blended = np.array(overlay).astype(int)
    assert np.abs(blended - (pixels + colors[classes]) / 2).max() <= 0.5
    with Image.open(tmp_path / "out/classes.png") as key:
        shown = set(map(tuple, np.array(key.convert("RGB")).reshape(-1, 3).tolist()))
    assert set(map(tuple, colors.tolist())) <= shown
    assert (119, 11, 32) not in shown  # the bicycle, of the 19 classes


# Random weights


def drawn(config, iterations):
    """Return the weights of some iterations, (iterations, tasks)."""
    loss_fn, found = build_loss(config), []
    for iteration in iterations:
        draw_weights(loss_fn, config, iteration)
        found.append([weight.item() for weight in loss_fn.weights().values()])
    return np.array(found)


def test_random_weights_are_the_softmax_of_standard_normal_draws(config):
    config = dataclasses.replace(config, weighting="random")
    weights = drawn(config, range(2000))
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-5)
    # The logarithm of a ratio of two is the difference of two standard normal numbers.
    differences = np.log(weights[:, 0] / weights[:, 1]) / math.sqrt(2)
    assert stats.kstest(differences, "norm").pvalue > 0.01


def test_random_weights_follow_from_seed_and_iteration(config):
    config = dataclasses.replace(config, weighting="random")
    weights = drawn(config, range(10))
    np.testing.assert_array_equal(drawn(config, [7, 3]), weights[[7, 3]])
    other = drawn(dataclasses.replace(config, seed=1), range(10))
    assert not np.isclose(other, weights).any()


def test_random_weights_multiply_the_losses_of_their_step(config):
    train(dataclasses.replace(config, weighting="random"))
    assert load_config(config.out).weighting == "random"
    lines = read_log(config.out / "metrics.jsonl")
    assert len({line["weight"]["depth"] for line in lines}) == len(lines)
    for line in lines:
        assert sum(line["weight"].values()) == pytest.approx(1.0, abs=1e-6)
        for task, weight in line["weight"].items():
            assert line["nll"][task] == pytest.approx(weight * line["loss"][task], rel=1e-5)


def test_a_resumed_run_with_random_weights_is_the_uninterrupted_one(config):
    config = dataclasses.replace(config, weighting="random", checkpoint_every=3)
    train(config)
    other = dataclasses.replace(config, out=config.out.with_name("resumed"))
    # Stopped at once, again and again: every call trains a single step.
    resume = False
    while train(other, resume=resume, deadline=0.0) < config.iterations:
        resume = True
    assert_same_runs(config.out, other.out)


# UW-SO


def test_the_softmax_weighs_by_the_losses_of_the_step(config):
    train(
        dataclasses.replace(
            config,
            estimator="closed_form",
            closed_form_momentum=1.0,
            constraint="softmax",
            temperature=2.0,
        )
    )
    for line in read_log(config.out / "metrics.jsonl"):
        losses = np.array(list(line["loss"].values()))
        expected = np.exp(1 / (2.0 * losses))
        found = list(line["weight"].values())
        np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"constraint": "softmax", "temperature": 5.0}, "needs --estimator closed_form"),
        ({"constraint": "softmax", "estimator": "closed_form"}, "--temperature: required by"),
        ({"temperature": 5.0}, "--temperature: 5.0 needs --constraint softmax"),
        ({"weighting": "random", "temperature": 5.0}, "needs --weighting uncertainty"),
        ({"weighting": "random", "estimator": "closed_form"}, "needs --weighting uncertainty"),
        ({"weighting": "rlw"}, "should be uncertainty, equal, random or fixed"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config, changes, words):
    with pytest.raises(InputError, match=words):
        dataclasses.replace(config, **changes)
