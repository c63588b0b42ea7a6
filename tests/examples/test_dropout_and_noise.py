"""Training with dropout, and with a depth noise that the network predicts for every pixel."""

import dataclasses
import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.distributions import Laplace

from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.evaluation.evaluate import evaluate, load_trained
from examples.cityscapes.model.network import SceneNet, without_noise
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.report.page import write_report
from examples.cityscapes.training import train as training
from examples.cityscapes.training.log import read_log
from examples.cityscapes.training.losses import (
    base_losses,
    build_loss,
    errors_of_step,
    noise_of_step,
)
from examples.cityscapes.training.saving import Run
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY, assert_same
from tests.examples.tiny_tree import write_tree

BOTH = {"dropout": 0.3, "depth_noise": "per-pixel", "form": "nll"}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(tree, tmp_path):
    return TrainConfig(data=tree, out=tmp_path / "run", **{**TINY, **BOTH})


def test_dropout_adds_no_weight_and_renames_none(config):
    plain = SceneNet(dataclasses.replace(config, dropout=0.0))
    dropped = SceneNet(config)
    assert plain.state_dict().keys() == dropped.state_dict().keys()
    layers = [m for m in dropped.modules() if isinstance(m, nn.Dropout2d)]
    assert [layer.p for layer in layers] == [0.3] * 3
    assert not any(isinstance(m, nn.Dropout2d) for m in plain.modules())


def test_dropout_is_random_in_training_and_does_nothing_in_evaluation(config):
    model = SceneNet(config).eval()
    image = torch.randint(0, 255, (2, 3, 16, 32), dtype=torch.uint8)
    one, same = (without_noise(model(image)) for _ in range(2))
    assert_same(one, same)
    for decoder in model.decoders.values():
        decoder[0][-1].train()
    assert not torch.equal(without_noise(model(image))["semantic"], one["semantic"])


def test_the_loss_of_depth_is_the_laplace_density_at_the_predicted_noise(config):
    config = dataclasses.replace(config, tasks=("depth",))
    torch.manual_seed(0)
    mean, log_var, target = torch.randn(3, 2, 1, 4, 5)
    mask = torch.rand(2, 4, 5) > 0.3
    loss = build_loss(config)({"depth": (mean, log_var)}, {"depth": target}, {"depth": mask}).total
    density = Laplace(mean, torch.exp(log_var / 2) / math.sqrt(2)).log_prob(target)
    expected = -density[mask.unsqueeze(1)].mean() - math.log(2) / 2
    torch.testing.assert_close(loss, expected)
    error = base_losses({"depth": (mean, log_var)}, {"depth": target}, {"depth": mask})["depth"]
    torch.testing.assert_close(error.mean(), (mean - target).abs()[mask.unsqueeze(1)].mean())


def test_the_logged_error_is_the_plain_one_and_the_logged_sigma_that_of_labelled_pixels(config):
    loss_fn = build_loss(config)
    torch.manual_seed(0)
    mean, log_var, target = torch.randn(3, 2, 1, 4, 5)
    masks = {
        "semantic": torch.rand(2, 4, 5) > 0.5,
        "instance": torch.rand(2, 4, 5) > 0.5,
        "depth": torch.rand(2, 4, 5) > 0.3,
    }
    predictions = {
        "semantic": torch.randn(2, 19, 4, 5),
        "instance": torch.randn(2, 2, 4, 5),
        "depth": (mean, log_var),
    }
    labels = torch.randint(19, (2, 4, 5))
    targets = {
        "semantic": labels.where(masks["semantic"], 255),
        "instance": torch.randn(2, 2, 4, 5),
        "depth": target,
    }
    losses = loss_fn(predictions, targets, masks)
    errors = errors_of_step(losses, predictions, targets, masks)
    labelled = masks["depth"].unsqueeze(1)
    both = masks["instance"].unsqueeze(1).expand(2, 2, 4, 5)
    logits = predictions["semantic"].movedim(1, -1)[masks["semantic"]]
    expected = {
        "semantic": F.cross_entropy(logits, labels[masks["semantic"]]),
        "instance": (predictions["instance"] - targets["instance"]).abs()[both].mean(),
        "depth": (mean - target).abs()[labelled].mean(),
    }
    torch.testing.assert_close({task: error.mean() for task, error in errors.items()}, expected)
    noise = noise_of_step(loss_fn, predictions, masks)
    assert noise.keys() == {"depth"}
    torch.testing.assert_close(noise["depth"].mean(), log_var.div(2).exp()[labelled].mean())


def test_noise_of_no_labelled_pixel_is_null_in_the_log_and_blank_in_the_report(tmp_path):
    tree = write_tree(tmp_path / "data")
    for path in sorted(tree.rglob("*_disparity.png"))[1:]:
        path.unlink()
    config = TrainConfig(
        data=tree,
        out=tmp_path / "run",
        **{**TINY, "depth_noise": "per-pixel", "form": "nll", "iterations": 3},
    )
    training.train(config)
    text = (config.out / "metrics.jsonl").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
    lines = read_log(config.out / "metrics.jsonl")
    without = [line for line in lines if line["loss"]["depth"] is None]
    assert len(without) == 2, "in three batches of two, one image of six has a disparity"
    for line in without:
        assert line["loss"]["depth"] is line["sigma"]["depth"] is line["weight"]["depth"] is None
        assert line["nll"]["depth"] == 0
        assert line["sigma"]["instance"] > 0
    assert "Training" in write_report(config, None).read_text()


def test_the_noise_starts_at_sigma_init_and_the_depth_at_the_mean_label(config):
    model = initial_model(dataclasses.replace(config, sigma_init="3"), None, None)
    assert model.decoders["depth"][-1].bias[1].item() == pytest.approx(2 * math.log(3))
    training.train(dataclasses.replace(config, start_at_mean=True, iterations=1, sigma_lr=1e-9))
    mean, log_var = read_checkpoint(config.out / "last.pt")["model"]["decoders.depth.1.bias"]
    assert mean > 1, "disparities of the tree are 1 to 2.5 px, and 0 in the sky"
    assert abs(log_var) < 0.1


def test_a_run_with_both_resumes_bit_identical_and_logs_the_mean_sigma(
    config, tmp_path, monkeypatch
):
    config = dataclasses.replace(config, eval_every=4)
    training.train(config)
    halves = dataclasses.replace(config, out=tmp_path / "halves", checkpoint_every=4)
    answers = iter([False] * 3)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "is_asked_to_stop", lambda self: next(answers, True))
        assert training.train(halves) == 4
    training.train(halves, resume=True)
    one, two = (read_checkpoint(c.out / "last.pt") for c in (config, halves))
    assert_same(one, two)
    for line in read_log(config.out / "metrics.jsonl"):
        assert 0.1 < line["sigma"]["depth"] < 10
        assert line["weight"]["depth"] == pytest.approx(2**0.5 / line["sigma"]["depth"])


def test_evaluation_and_validation_measure_the_prediction_not_its_noise(config):
    training.train(dataclasses.replace(config, eval_every=8))
    (line,) = read_log(config.out / "validation.jsonl")
    metrics = evaluate(load_config(config.out), config.data, "cpu")
    assert metrics["depth_error_px"] == pytest.approx(line["depth_error_px"], rel=1e-5)


def test_a_config_of_before_loads_as_no_dropout_and_one_sigma(config):
    plain = dataclasses.replace(config, dropout=0.0, depth_noise="shared")
    training.train(plain)
    path = plain.out / "config.json"
    fields = json.loads(path.read_text())
    del fields["dropout"], fields["depth_noise"]
    path.write_text(json.dumps(fields))
    assert load_config(plain.out) == plain
    load_trained(load_config(plain.out))


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"dropout": 1.0}, "--dropout: .*found 1.0"),
        ({"dropout": -0.1}, "--dropout"),
        ({"dropout": math.nan}, "--dropout"),
        ({"depth_noise": "some"}, "--depth-noise: unknown 'some'"),
        ({"tasks": ("semantic",)}, "--depth-noise: per-pixel needs the task depth"),
        ({"weighting": "equal"}, "--depth-noise: .*--weighting uncertainty; found equal"),
        ({"form": "symmetric"}, "--depth-noise: .*--form nll"),
        ({"constraint": "unit_sum"}, "--depth-noise: .*--constraint none"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(config, fields, named):
    with pytest.raises(InputError, match=named):
        dataclasses.replace(config, **fields)


@pytest.mark.parametrize("fields", [{"estimator": "closed_form"}, {"sigma_init": "data"}])
def test_noise_per_pixel_goes_with_every_way_of_finding_the_other_sigmas(config, fields):
    training.train(dataclasses.replace(config, iterations=2, **fields))
    assert len(read_log(config.out / "metrics.jsonl")) == 2
