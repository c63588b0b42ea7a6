"""`--clip-grad-norm`: how far a step goes, and what it leaves alone."""

import dataclasses
import math

import pytest
import torch

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.training.log import read_log
from examples.cityscapes.training.train import train
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY, assert_same
from tests.examples.tiny_tree import write_tree

LIMIT = 0.01


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(tree, tmp_path):
    settings = {**TINY, "iterations": 1, "weight_decay": 0.0, "batch_size": 4}
    return TrainConfig(data=tree, out=tmp_path / "run", **settings)


def trained(config, name, **changes):
    """Return the checkpoint and the log of a run."""
    config = dataclasses.replace(config, out=config.out.with_name(name), **changes)
    train(config)
    return [read_checkpoint(config.out / "last.pt"), read_log(config.out / "metrics.jsonl")]


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_step_goes_no_further_than_the_limit_allows(config, accumulate, precision):
    changes = {"accumulate": accumulate, "precision": precision}
    saved, (line,) = trained(config, "run", clip_grad_norm=LIMIT, **changes)
    assert line["gradient_norm"]["network"] > 10 * LIMIT, "logged as it was before"
    before = dict(initial_model(config, None, None).named_parameters())
    steps = [(saved["model"][name] - value.detach()).double() for name, value in before.items()]
    length = math.sqrt(sum(float(step.square().sum()) for step in steps))
    # Nesterov's momentum of 0.9 adds as much of the first gradient again.
    assert length == pytest.approx(1.9 * config.learning_rate * LIMIT, rel=1e-3)


def test_the_step_of_sigma_is_not_clipped(config):
    # From 1, as a sigma that starts at its optimum has no gradient.
    plain, _ = trained(config, "plain", sigma_init="1")
    clipped, _ = trained(config, "clipped", sigma_init="1", clip_grad_norm=LIMIT)
    assert_same(clipped["loss"], plain["loss"])
    moved = [value for name, value in plain["loss"].items() if name.endswith("log_var")]
    assert len(moved) == 3
    assert all(value.abs() > 1e-3 for value in moved)
    assert not torch.equal(*(s["model"]["decoders.depth.1.bias"] for s in (plain, clipped)))


def test_a_limit_that_no_gradient_reaches_changes_nothing(config):
    plain = trained(config, "plain", iterations=4)
    assert_same(trained(config, "clipped", iterations=4, clip_grad_norm=1e9), plain)


@pytest.mark.parametrize("limit", [0.0, -1.0, math.inf, math.nan])
def test_a_limit_should_be_a_number_above_0(config, limit):
    with pytest.raises(InputError, match="--clip-grad-norm: should be above 0"):
        dataclasses.replace(config, clip_grad_norm=limit)
