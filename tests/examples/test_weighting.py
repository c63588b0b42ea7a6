"""The ways of weighing that the command line offers, each seen through what a run logs."""

import dataclasses
import json
import math

import pytest
import torch

from examples.cityscapes.config import TrainConfig, load_config, to_json
from examples.cityscapes.training.log import read_log
from examples.cityscapes.training.train import train
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from examples.common.flag_text import flag_of
from tests.examples.tiny_run import TINY
from tests.examples.tiny_tree import write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(tree, tmp_path):
    return TrainConfig(data=tree, out=tmp_path / "run", **{**TINY, "iterations": 4})


def trained(config, **changes):
    """Train and return the lines of metrics.jsonl."""
    config = dataclasses.replace(config, **changes)
    train(config)
    assert load_config(config.out) == config
    return read_log(config.out / "metrics.jsonl")


# Each optimum of the documentation's table: e^s from the mean base loss L.
OPTIMA = {
    "nll": {"semantic": lambda x: 2 * x, "depth": lambda x: 2 * x**2},
    "symmetric": {"semantic": lambda x: x, "depth": lambda x: x},
    "paper": {"semantic": lambda x: 2 * x, "depth": lambda x: x},
    "libmtl": {"semantic": lambda x: x, "depth": lambda x: x},
    "liebel_koerner": dict.fromkeys(
        ("semantic", "depth"), lambda x: (x + math.sqrt(x * x + 8 * x)) / 4
    ),
}


@pytest.mark.parametrize("form", OPTIMA)
@pytest.mark.parametrize("how", [{"estimator": "closed_form"}, {"sigma_init": "data"}])
def test_sigma_of_the_first_batch_is_the_optimum_of_its_form(config, form, how):
    first = trained(config, form=form, iterations=1, **how)[0]
    for task, optimum in OPTIMA[form].items():
        assert first["sigma"][task] ** 2 == pytest.approx(optimum(first["loss"][task]), rel=1e-4)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_the_weights_sum_to_one_under_the_constraint(config, estimator):
    for line in trained(config, estimator=estimator, constraint="unit_sum"):
        assert sum(line["weight"].values()) == pytest.approx(1.0, abs=1e-5)


def test_sigma_starts_where_it_is_told_and_moves_at_its_own_rate(config):
    lines = trained(config, form="nll", sigma_init="2.5", sigma_lr=0.1)
    assert list(lines[0]["sigma"].values()) == pytest.approx([2.5] * 3)
    # One step of SGD on s for the Laplace term sqrt(2) L e^(-s/2) + s/2.
    loss, s = lines[0]["loss"]["depth"], 2 * math.log(2.5)
    s -= 0.1 * (0.5 - loss * math.exp(-s / 2) / math.sqrt(2))
    assert lines[1]["sigma"]["depth"] == pytest.approx(math.exp(s / 2), rel=1e-5)


def test_closed_form_learns_nothing_by_gradient(config):
    trained(config, estimator="closed_form")
    assert len(read_checkpoint(config.out / "last.pt")["optimizers"]) == 1


def test_the_momentum_of_the_closed_form_is_the_share_of_the_newest_batch(config):
    lines = trained(config, form="nll", estimator="closed_form", closed_form_momentum=0.3)
    mean = lines[0]["loss"]["semantic"]
    for line in lines[1:]:
        mean += 0.3 * (line["loss"]["semantic"] - mean)
        assert line["sigma"]["semantic"] ** 2 == pytest.approx(2 * mean, rel=1e-4)


def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole(config):
    # With batch norm frozen, equal weights, and labels of one task that are equally many in every
    # image, the mean over two parts is the mean over the whole.
    config = dataclasses.replace(
        config,
        tasks=("semantic",),
        weighting="equal",
        batch_size=4,
        freeze_batch_norm=True,
        iterations=3,
    )
    whole = trained(config)
    other = dataclasses.replace(config, out=config.out.with_name("parts"))
    parts = trained(other, accumulate=2)
    for a, b in zip(whole, parts, strict=True):
        assert a["loss"]["semantic"] == pytest.approx(b["loss"]["semantic"], rel=1e-4)
    one, two = (read_checkpoint(c.out / "last.pt")["model"] for c in (config, other))
    for name, expected in one.items():
        torch.testing.assert_close(two[name], expected, rtol=1e-4, atol=1e-5)


def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale(config):
    trained(config, freeze_batch_norm=True, eval_every=2)
    model = read_checkpoint(config.out / "last.pt")["model"]
    means = [value for name, value in model.items() if name.endswith("running_mean")]
    assert means
    assert not any(mean.any() for mean in means)
    scales = [value for name, value in model.items() if name.endswith("decoders.depth.0.1.weight")]
    assert not torch.equal(scales[0], torch.ones_like(scales[0]))


@pytest.mark.parametrize(
    ("changes", "recorded"),
    [
        ({"weighting": "equal"}, {"form": "nll", "sigma_init": "1"}),  # older defaults
        ({"estimator": "closed_form"}, {"sigma_init": "1"}),
        ({}, {"closed_form_momentum": 0.3}),
    ],
    ids=["equal", "closed_form", "learned"],
)
def test_a_run_of_an_older_version_loads_with_settings_that_it_did_not_use(
    config, changes, recorded
):
    old = dataclasses.replace(config, **changes)
    fields = {**json.loads(to_json(old)), **recorded}
    config.out.mkdir(exist_ok=True)
    (config.out / "config.json").write_text(json.dumps(fields))
    assert load_config(config.out) == old


# Settings that leave each other without effect

CLOSED_FORM = {"estimator": "closed_form"}
PER_PIXEL = {"form": "nll", "depth_noise": "per-pixel"}
SETTINGS = {
    **CLOSED_FORM,
    "closed_form_momentum": 0.3,
    "form": "paper",
    "constraint": "unit_sum",
    "temperature": 2.0,
    "sigma_init": "2",
    "depth_noise": "per-pixel",
}
"""Every setting about sigma, with a value that is not its default."""


@pytest.mark.parametrize(
    ("base", "used"),
    [
        ({}, {"estimator", "form", "constraint", "sigma_init"}),
        (CLOSED_FORM, {"closed_form_momentum", "form", "constraint"}),
        (
            {**CLOSED_FORM, "constraint": "softmax", "temperature": 5.0},
            {"closed_form_momentum", "form", "temperature"},
        ),
        (PER_PIXEL, {"estimator", "sigma_init"}),
        ({**PER_PIXEL, **CLOSED_FORM}, {"closed_form_momentum", "sigma_init"}),
        (
            {"tasks": ("semantic", "instance"), "form": "nll"},
            {"estimator", "form", "constraint", "sigma_init"},
        ),
        ({"weighting": "equal"}, set()),
        ({"weighting": "random"}, set()),
        ({"weighting": "fixed:1,2,3"}, set()),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_a_setting_about_sigma_changes_the_run_or_is_refused(config, base, used):
    config = dataclasses.replace(config, iterations=3, **base)
    plain = trained(config)
    for name, value in SETTINGS.items():
        if getattr(config, name) == value:
            continue
        changed = {name: value, "out": config.out.with_name(name)}
        if name in used:
            assert trained(config, **changed) != plain, name
        else:
            with pytest.raises(InputError, match=flag_of(name)):
                dataclasses.replace(config, **changed)
