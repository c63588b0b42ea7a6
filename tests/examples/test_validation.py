"""What chooses the best checkpoint, and what a run shows of itself."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import in_order
from examples.cityscapes.evaluation.evaluate import measure
from examples.cityscapes.evaluation.metrics import predict_maps
from examples.cityscapes.evaluation.predictors import by_network
from examples.cityscapes.labels import PALETTE
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.log import read_log
from examples.cityscapes.training.train import train
from examples.cityscapes.training.validation import selection_error, validate
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY
from tests.examples.tiny_tree import write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"), val=3)


@pytest.fixture
def config(tree, tmp_path):
    return TrainConfig(data=tree, out=tmp_path / "run", **{**TINY, "eval_every": 3})


@pytest.mark.parametrize("tasks", [("semantic", "instance", "depth"), ("instance",)])
def test_validation_gives_the_figures_of_the_evaluate_command(config, tasks):
    config = dataclasses.replace(config, tasks=tasks)
    val = CityscapesDataset(config.data, "val", config.size, tasks)
    model, device = SceneNet(config), torch.device("cpu")
    found = validate(model, batches(val, in_order(val, 2), tasks), Ranks(device))
    expected = measure(val, tasks, by_network(model, device))
    for figure in ("semantic_iou_present", "instance_error_px", "depth_error_px"):
        if expected[figure] is None:
            assert found[figure] is None
        else:
            assert found[figure] == pytest.approx(expected[figure], rel=1e-5)


def test_the_selection_error_ranks_alike_in_any_unit_and_leaves_out_what_is_unlabelled():
    assert selection_error(0.5, 4.0, None) == pytest.approx(math.sqrt(0.5 * 4))
    assert selection_error(None, None, None) is None
    one, other = (0.5, 4.0, 2.0), (0.6, 4.1, 1.9)
    assert selection_error(*other) < selection_error(*one)
    in_cm = [(iou, offset, 100 * depth) for iou, offset, depth in (other, one)]
    assert selection_error(*in_cm[0]) < selection_error(*in_cm[1])


def test_the_best_checkpoint_is_that_of_the_lowest_selection_error(config):
    train(dataclasses.replace(config, iterations=11, checkpoint_every=100, learning_rate=0.1))
    lines = read_log(config.out / "validation.jsonl")
    assert [line["iteration"] for line in lines] == [3, 6, 9, 11]
    best = min(lines, key=lambda line: line["selection_error"])
    saved = read_checkpoint(config.out / "best.pt")
    assert saved["iteration"] == best["iteration"]
    assert saved["best"] == best["selection_error"]
    assert [line["iteration"] for line in lines if line["is_best"]][-1] == best["iteration"]
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 11


def test_looking_at_the_validation_split_changes_nothing_in_the_weights(config):
    train(config)
    other = dataclasses.replace(config, out=config.out.with_name("other"), eval_every=0)
    train(other)
    one, two = (read_checkpoint(c.out / "last.pt")["model"] for c in (config, other))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (other.out / "best.pt").exists()


def test_a_tree_without_validation_split_is_refused_with_the_way_out(tmp_path, config):
    tree = write_tree(tmp_path / "data", val=0)
    config = dataclasses.replace(config, data=tree)
    with pytest.raises(InputError, match="--eval-every 0"):
        train(config)
    assert not config.out.exists()
    assert train(dataclasses.replace(config, eval_every=0)) == 8


def test_tensorboard_shows_the_scalars_of_the_log_and_pictures_of_the_right_size(config):
    train(dataclasses.replace(config, tensorboard=True))
    shown = EventAccumulator(str(config.out / "tensorboard"))
    shown.Reload()
    for line in read_log(config.out / "metrics.jsonl"):
        event = shown.Scalars("sigma/depth")[line["iteration"]]
        assert (event.step, event.value) == (
            line["iteration"] + 1,
            pytest.approx(line["sigma"]["depth"]),
        )
    validations = read_log(config.out / "validation.jsonl")
    events = shown.Scalars("validation/selection_error")
    assert [event.step for event in events] == [line["iteration"] for line in validations]
    for name in ("input", "classes", "instances", "inverse_depth"):
        pictures = shown.Images(f"pictures/{name}")
        assert [(p.step, p.height, p.width) for p in pictures] == [
            (step, 16, 32) for step in (3, 6, 8)
        ]
    assert shown.Scalars("images_per_second")[0].value > 0


def test_tensorboard_forgets_what_came_after_the_checkpoint_that_a_run_goes_on_from(config):
    fields = {"tensorboard": True, "checkpoint_every": 5, "eval_every": 5}
    config = dataclasses.replace(config, **fields, iterations=5)
    train(config)
    train(dataclasses.replace(config, iterations=8), resume=True)
    shown = EventAccumulator(str(config.out / "tensorboard"), purge_orphaned_data=True)
    shown.Reload()
    assert [event.step for event in shown.Scalars("loss/depth")] == list(range(1, 9))
    validated = [line["iteration"] for line in read_log(config.out / "validation.jsonl")]
    assert validated[0] == 5  # the iteration that the run went on from
    for shown_of in (shown.Scalars("validation/selection_error"), shown.Images("pictures/input")):
        assert [event.step for event in shown_of] == validated


def test_pictures_are_bytes(config):
    # A float picture would be scaled a second time.
    from examples.cityscapes.training.board import pictures

    image = torch.randint(0, 256, (1, 3, 16, 32), dtype=torch.uint8)
    model = SceneNet(config).eval()
    shown = pictures(image, predict_maps(model, image), PALETTE)
    assert {picture.dtype for picture in shown.values()} == {np.dtype("uint8")}
    assert np.array_equal(shown["input"], image[0].permute(1, 2, 0).numpy())
