"""Training on tiny trees: what it writes, how it resumes, and when it refuses."""

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
import torch

from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.evaluation.evaluate import evaluate
from examples.cityscapes.training import state
from examples.cityscapes.training import train as training
from examples.cityscapes.training.log import CHUNK, MetricLog, cut_log, read_log
from examples.cityscapes.training.losses import build_loss
from examples.common.checkpoint import read_checkpoint, save_checkpoint
from examples.common.errors import InputError, NonFiniteLossError
from tests.examples.tiny_run import TINY, assert_same
from tests.examples.tiny_tree import write_tree
from uncertainty_mtl import UncertaintyWeightedLoss


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(tree, tmp_path):
    return TrainConfig(data=tree, out=tmp_path / "run", **TINY)


def test_a_run_leaves_its_configuration_a_line_per_iteration_and_a_checkpoint(config):
    assert training.train(config) == 8
    assert load_config(config.out) == config
    lines = read_log(config.out / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == list(range(8))
    for line in lines:
        for quantity in ("loss", "nll", "sigma", "weight"):
            assert set(line[quantity]) == {"semantic", "instance", "depth"}
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 8
    assert sorted(p.name for p in config.out.iterdir()) == [
        "config.json",
        "last.pt",
        "metrics.jsonl",
    ]


def test_logged_losses_and_weights_belong_together(config):
    training.train(config)
    for line in read_log(config.out / "metrics.jsonl"):
        for task, loss in line["loss"].items():
            log_var = 2 * math.log(line["sigma"][task])
            expected = line["weight"][task] * loss + log_var  # the symmetric form
            assert line["nll"][task] == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_interrupted_and_resumed_run_ends_bit_identical(config, optimizer, monkeypatch):
    config = dataclasses.replace(config, checkpoint_every=3, optimizer=optimizer)
    training.train(config)

    def stop_at_five(state, parts, config, iteration, log, step=training.train_one_step):
        if iteration == 5:
            log.flush()  # logged beyond the checkpoint
            raise KeyboardInterrupt
        step(state, parts, config, iteration, log)

    again = dataclasses.replace(config, out=config.out.with_name("again"))
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_one_step", stop_at_five)
        with pytest.raises(KeyboardInterrupt):
            training.train(again)
    assert read_checkpoint(again.out / "last.pt")["iteration"] == 3
    assert len(read_log(again.out / "metrics.jsonl")) == 5
    training.train(again, resume=True)

    assert_same(*(read_checkpoint(c.out / "last.pt") for c in (config, again)))
    assert_same(*(read_log(c.out / "metrics.jsonl") for c in (config, again)))


def test_a_resumed_run_reads_only_the_images_that_it_trains_on(config, monkeypatch):
    config = dataclasses.replace(config, start_at_mean=True, cache_mb=0, iterations=3)
    training.train(config)
    read, reads = CityscapesDataset.read, []
    monkeypatch.setattr(CityscapesDataset, "read", lambda *a: reads.append(a) or read(*a))
    training.train(dataclasses.replace(config, iterations=5), resume=True)
    assert len(reads) == 1 + 2 * config.batch_size  # the first is read to check it


@pytest.mark.parametrize(
    "changes",
    [{}, {"constraint": "unit_sum"}, {"estimator": "closed_form"}, {"sigma_init": "data"}],
    ids=["learned", "unit_sum", "closed_form", "data"],
)
def test_a_checkpoint_of_an_older_version_resumes_with_its_sigmas(config, changes):
    config = dataclasses.replace(config, iterations=4, **changes)
    training.train(config)
    older = dataclasses.replace(config, out=config.out.with_name("older"))
    shutil.copytree(config.out, older.out)
    saved = read_checkpoint(older.out / "last.pt")
    # Older versions counted batches in closed form only, and saved no running means: sigma
    # implies them.
    saved["loss"] = {
        key: value
        for key, value in saved["loss"].items()
        if not key.startswith("scales.")
        and (config.estimator == "closed_form" or not key.endswith("num_batches_tracked"))
    }
    save_checkpoint(older.out / "last.pt", saved)
    logs = []
    for run in (config, older):
        assert training.train(dataclasses.replace(run, iterations=8), resume=True) == 8
        logs.append(read_log(run.out / "metrics.jsonl"))
    for line, expected in zip(*logs, strict=True):
        for quantity in ("loss", "nll", "sigma", "weight"):
            assert line[quantity] == pytest.approx(expected[quantity], rel=1e-4, abs=1e-4)


def test_a_run_killed_before_its_first_checkpoint_starts_again(config, capsys):
    training.train(config)
    before = read_checkpoint(config.out / "last.pt")
    (config.out / "last.pt").unlink()
    cut_log(config.out / "metrics.jsonl", 5)
    assert training.train(config, resume=True) == 8
    assert "ended before its first checkpoint" in capsys.readouterr().err
    assert_same(before, read_checkpoint(config.out / "last.pt"))
    assert len(read_log(config.out / "metrics.jsonl")) == 8
    # Killed while it saved for the first time, it has logged all that comes before.
    (config.out / "last.pt").rename(config.out / "last.pt.partial")
    assert training.train(config, resume=True) == 8


def test_a_run_that_has_lost_its_checkpoint_is_not_started_again_over_its_logs(config):
    training.train(dataclasses.replace(config, checkpoint_every=3))
    (config.out / "last.pt").unlink()
    before = (config.out / "metrics.jsonl").read_bytes()
    later = dataclasses.replace(config, checkpoint_every=500)
    with pytest.raises(InputError, match=r"last\.pt: not found, though the logs have 8 iterations"):
        training.train(later, resume=True)
    shutil.copy(config.out / "metrics.jsonl", config.out / "best.pt")
    with pytest.raises(InputError, match=r"copy best\.pt to last\.pt"):
        training.train(later, resume=True)
    assert (config.out / "metrics.jsonl").read_bytes() == before


def test_worker_processes_change_nothing(config):
    training.train(dataclasses.replace(config, iterations=3))
    other = dataclasses.replace(config, iterations=3, out=config.out.with_name("other"))
    training.train(dataclasses.replace(other, num_workers=2, cache_mb=0))
    assert_same(*(read_checkpoint(c.out / "last.pt") for c in (config, other)))


def test_training_lowers_the_losses_and_beats_the_untrained_network(config):
    config = dataclasses.replace(config, iterations=60, start_at_mean=True)
    training.train(config)
    metrics = evaluate(config, config.data, "cpu")
    untrained = metrics["untrained"]
    assert metrics["semantic_iou_present"] > untrained["semantic_iou_present"] + 0.1
    assert metrics["instance_error_px"] < untrained["instance_error_px"]
    assert metrics["depth_error_px"] < untrained["depth_error_px"]
    zero_offset = metrics["position_prior"]["instance_error_px"]
    assert 0 < zero_offset < 32
    assert json.loads((config.out / "metrics.json").read_text()) == metrics


def test_batches_without_labels_for_a_task_leave_its_sigma_alone(tmp_path):
    tree = write_tree(tmp_path / "data")
    for path in sorted(tree.rglob("*_disparity.png"))[1:]:
        path.unlink()
    config = TrainConfig(data=tree, out=tmp_path / "run", **{**TINY, "start_at_mean": True})
    training.train(config)
    lines = read_log(config.out / "metrics.jsonl")
    without = [line["loss"]["depth"] is None for line in lines]
    assert 0 < sum(without) < len(lines), "one image of six has a disparity"
    sigma = {task: [line["sigma"][task] for line in lines] for task in ("instance", "depth")}
    unlabelled = [k for k in range(1, len(lines)) if without[k - 1] and without[k]]
    assert unlabelled
    assert all(sigma["depth"][k] == sigma["depth"][k - 1] for k in unlabelled)
    assert any(sigma["instance"][k] != sigma["instance"][k - 1] for k in unlabelled)
    metrics = evaluate(config, tree, "cpu")
    assert metrics["depth_error_px"] is None
    assert metrics["position_prior"]["depth_error_px"] is None


def test_a_single_task_trains_alone_and_leaves_the_other_figures_empty(config):
    config = dataclasses.replace(config, tasks=("depth",))
    training.train(config)
    assert not any("semantic" in k for k in read_checkpoint(config.out / "last.pt")["model"])
    metrics = evaluate(config, config.data, "cpu")
    assert metrics["semantic_iou"] is metrics["instance_error_px"] is None
    assert metrics["depth_error_px"] > 0


def test_fixed_weights_follow_the_tasks_and_multiply_the_papers_losses(config):
    config = dataclasses.replace(
        config, tasks=("instance", "semantic", "depth"), weighting="fixed:0.5,2,3"
    )
    loss_fn = build_loss(config)
    logits = torch.zeros(1, 19, 1, 2)
    predictions = {
        "semantic": logits,
        "instance": torch.tensor([[[[1.0, 1.0]], [[3.0, 3.0]]]]),
        "depth": torch.full((1, 1, 1, 2), 5.0),
    }
    targets = {
        "semantic": torch.tensor([[[0, 255]]]),
        "instance": torch.zeros(1, 2, 1, 2),
        "depth": torch.zeros(1, 1, 1, 2),
    }
    mask = torch.tensor([[[True, False]]])
    masks = {"semantic": mask, "instance": mask, "depth": mask}
    losses = loss_fn(predictions, targets, masks)
    assert losses.tasks["instance"].item() == 0.5 * (1 + 3)
    assert losses.tasks["semantic"].item() == pytest.approx(2 * math.log(19))
    assert losses.tasks["depth"].item() == 3 * 5
    assert losses.total.item() == pytest.approx(2 + 2 * math.log(19) + 15)
    # The errors are plain means, over components too.
    errors = {task: error.item() for task, error in losses.errors.items()}
    assert errors == pytest.approx({"semantic": math.log(19), "instance": 2, "depth": 5})
    assert losses.counts == {"semantic": 1, "instance": 2, "depth": 1}

    losses = loss_fn(predictions, targets, {**masks, "depth": torch.zeros_like(mask)})
    assert losses.tasks["depth"] == losses.counts["depth"] == 0
    assert losses.errors["depth"].isnan()
    assert losses.total.item() == pytest.approx(2 + 2 * math.log(19))


def test_equal_weights_are_one_over_the_number_of_tasks(config):
    loss_fn = build_loss(
        dataclasses.replace(config, weighting="equal", tasks=("semantic", "depth"))
    )
    assert loss_fn.estimator == "fixed"
    assert {task: w.item() for task, w in loss_fn.weights().items()} == {
        "semantic": 0.5,
        "depth": 0.5,
    }


def test_sigma_has_its_own_rate_no_decay_and_no_momentum(config):
    model, loss_fn = torch.nn.Linear(2, 2), build_loss(config)
    assert isinstance(loss_fn, UncertaintyWeightedLoss)
    network, sigma = state.build_optimizers(
        model, loss_fn, dataclasses.replace(config, sigma_lr=0.03)
    )
    assert (network.defaults["momentum"], network.defaults["nesterov"]) == (0.9, True)
    assert network.param_groups[0]["weight_decay"] == 1e-4
    group = sigma.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (0.03, 0.0, 0)
    assert len(group["params"]) == 3


def test_the_learning_rate_decays_as_in_the_paper_and_may_rise_first(config):
    config = dataclasses.replace(config, learning_rate=2.0, iterations=10)
    rates = [state.scheduled_rate(config, i) for i in range(10)]
    assert rates[0] == 2.0
    assert rates[5] == pytest.approx(2.0 * 0.5**0.9)
    warm = dataclasses.replace(config, warmup=4)
    assert state.scheduled_rate(warm, 0) == pytest.approx(2.0 / 5)
    assert state.scheduled_rate(warm, 5) == rates[5]


def test_a_run_is_not_overwritten(config):
    training.train(config)
    before = (config.out / "last.pt").read_bytes()
    with pytest.raises(InputError, match="already holds a run"):
        training.train(config)
    assert (config.out / "last.pt").read_bytes() == before


def poisoned(iteration_of_poison, value, step=training.train_one_step):
    """Return a step that meets broken disparities in one iteration."""

    def train_one_step(state, parts, config, iteration, log):
        parts = list(parts)
        if iteration == iteration_of_poison:
            parts[0].disparity.fill_(value)
        step(state, parts, config, iteration, log)

    return train_one_step


def test_a_loss_that_is_not_finite_stops_training_and_names_iteration_task_and_images(
    config, monkeypatch
):
    config = dataclasses.replace(config, checkpoint_every=2)
    monkeypatch.setattr(training, "train_one_step", poisoned(5, math.inf))
    with pytest.raises(NonFiniteLossError, match=r"iteration 5: .* task 'depth' is") as caught:
        training.train(config)
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 4
    # Six images in batches of two: iteration 5 is the last third of the second epoch.
    order = np.random.default_rng([config.seed, 1]).permutation(6)
    for index in order[4:]:
        assert f"town_{index:06d}_000000_leftImg8bit.png" in str(caught.value)
    for index in order[:4]:
        assert f"town_{index:06d}_000000_leftImg8bit.png" not in str(caught.value)


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(config, monkeypatch):
    # The losses of iteration 4 are finite, only its gradient is not: the checkpoint that is due
    # after it would hold broken weights.
    config = dataclasses.replace(config, checkpoint_every=1)
    norm = torch.Tensor.norm
    calls = []

    def broken_from_iteration_4(self, *args, **kwargs):
        calls.append(0)
        return norm(self, *args, **kwargs) * (math.inf if is_at_4[-1] else 1)

    is_at_4 = [False]

    def step(state, parts, config, iteration, log, step=training.train_one_step):
        is_at_4.append(iteration == 4)
        step(state, parts, config, iteration, log)

    monkeypatch.setattr(training, "train_one_step", step)
    monkeypatch.setattr(torch.Tensor, "norm", broken_from_iteration_4)
    with pytest.raises(NonFiniteLossError, match="iteration 4: the norm of the gradient"):
        training.train(config)
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 4


def test_a_deadline_saves_and_stops(config):
    assert training.train(config, deadline=0.0) == 1
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 1
    assert training.train(config, resume=True) == 8


def test_the_log_drops_half_a_line_left_by_a_killed_run(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"iteration": 0}\n{"itera')
    assert read_log(path) == [{"iteration": 0}]


def test_nothing_is_read_back_from_the_device_between_writes(tmp_path):
    log = MetricLog(tmp_path / "metrics.jsonl")
    values = {q: {"depth": torch.tensor(1.5)} for q in ("loss", "num_labelled", "nll", "sigma")}
    for iteration in range(2 * CHUNK + 1):
        log.add({"iteration": iteration}, values)
    assert len(read_log(log.path)) == 2 * CHUNK
    log.flush()
    assert len(read_log(log.path)) == 2 * CHUNK + 1


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"tasks": ("semantic", "normals")}, "--tasks"),
        ({"tasks": ()}, "--tasks"),
        ({"tasks": ("depth", "depth")}, "--tasks"),
        ({"weighting": "fixed:1,2"}, "--weighting"),
        ({"weighting": "fixed:1,two,3"}, "--weighting"),
        ({"weighting": "fixed:1,-2,3"}, "--weighting"),
        ({"weighting": "learned"}, "--weighting"),
        ({"backbone": "vgg16"}, "--backbone"),
        ({"batch_size": 1}, "--batch-size"),
        ({"batch_size": 4, "accumulate": 3}, "--accumulate"),
        ({"batch_size": 2, "accumulate": 2}, "--batch-size"),
        ({"preset": "huge"}, "--preset"),
        ({"estimator": "guessed"}, "--estimator"),
        ({"form": "square"}, "--form"),
        ({"constraint": "unit_product"}, "--constraint"),
        ({"form": "liebel_koerner", "constraint": "unit_sum"}, "--constraint"),
        ({"weighting": "equal", "estimator": "closed_form"}, "--estimator"),
        ({"weighting": "fixed:1,2,3", "sigma_init": "2"}, "--sigma-init"),
        ({"sigma_init": "0"}, "--sigma-init"),
        ({"sigma_init": "nan"}, "--sigma-init"),
        ({"sigma_init": "labels"}, "--sigma-init"),
        ({"closed_form_momentum": 0.0}, "--closed-form-momentum"),
        ({"eval_every": -1}, "--eval-every"),
        ({"iterations": 0}, "--iterations"),
        ({"learning_rate": math.nan}, "--learning-rate"),
        ({"sigma_lr": -1.0}, "--sigma-lr"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_by_the_name_of_its_flag(config, changes, flag):
    with pytest.raises(InputError, match=flag):
        dataclasses.replace(config, **changes)
