"""The report of any run: evaluated or not, finished or not, of any tasks."""

import dataclasses
import json
import platform
import re

import pytest
import torch

import uncertainty_mtl
from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.evaluation.evaluate import evaluate
from examples.cityscapes.evaluation.metrics import SplitMetrics
from examples.cityscapes.report.curves import draw_curves
from examples.cityscapes.report.page import settings
from examples.cityscapes.report.weights import weight_rows_of
from examples.cityscapes.training import train as training
from tests.examples.test_demo import Page
from tests.examples.tiny_run import TINY
from tests.examples.tiny_tree import write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(tree, tmp_path):
    return TrainConfig(data=tree, out=tmp_path / "run", **{**TINY, "iterations": 4})


def report(config, *flags):
    assert main([str(flag) for flag in ("report", "--run", config.out, *flags)]) == 0
    text = (config.out / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert page.open_tags == []
    return text, page


def test_a_run_without_evaluation_and_data_has_curves_and_settings(config):
    training.train(config)
    text, page = report(config)
    assert "Not evaluated yet" in text
    assert text.count("<svg") == 3
    assert page.pictures == 0
    assert "<span>learning rate</span> 0.01" in text
    assert "Not finished" not in text
    assert "By class" not in text


def test_a_run_that_goes_on_is_reported_as_far_as_it_has_come(config):
    training.train(config)
    log = config.out / "metrics.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:3]) + lines[3][:20])  # the writer is in the middle of a line
    text, _ = report(config)
    assert "<strong>Not finished.</strong> 3 of 4 iterations" in text
    log.unlink()
    (config.out / "last.pt").unlink()
    text, _ = report(config)
    assert "Nothing is logged yet" in text
    assert "<svg" not in text


@pytest.mark.parametrize(
    ("fields", "columns"),
    [
        (
            {"tasks": ("semantic", "instance", "depth"), "depth_noise": "per-pixel", "form": "nll"},
            3,
        ),
        ({"tasks": ("semantic",), "weighting": "equal"}, 1),
        ({"tasks": ("depth", "semantic")}, 2),
        ({"tasks": ("instance",)}, 0),
    ],
    ids=["all", "semantic", "depth and semantic", "instance"],
)
def test_every_set_of_tasks_has_its_figures_curves_and_pictures(config, tree, fields, columns):
    config = dataclasses.replace(config, **{"eval_every": 2, **fields})
    training.train(config)
    evaluate(config, tree, "cpu")
    text, page = report(config, "--data", tree, "--checkpoint", "best")
    assert text.count("<svg") == (2 if config.weighting == "equal" else 4)
    assert page.pictures == 2 * (1 + 2 * columns)
    for title, task in (("mean IoU", "semantic"), ("offset error", "instance")):
        assert (f"<td>{title}<small>" in text) == (task in config.tasks)
    assert ("By class" in text) == ("semantic" in config.tasks)
    figures = json.loads((config.out / "metrics.json").read_text())
    if "depth" in config.tasks:
        assert f">{figures['depth_error_px']:.3f}</td>" in text


def evaluated(config, tree, change):
    """Evaluate a run, change its figures, and return the page."""
    training.train(config)
    metrics = evaluate(config, tree, "cpu")
    change(metrics)
    (config.out / "metrics.json").write_text(json.dumps(metrics))
    return report(config)[0]


def test_the_official_figures_are_shown_where_there_are_any(config, tree):
    text = evaluated(
        config, tree, lambda m: m.update(official={"ap": 0.1234, "ap50": None, "pq": 1})
    )
    assert "<td>AP<small>" in text
    assert ">0.123</td><td>-</td><td>-</td>" in text
    assert "<td>panoptic quality<small>" in text
    assert "AP50" not in text


@pytest.mark.parametrize("is_counted", [True, False])
def test_only_classes_that_occur_are_listed(config, tree, is_counted):
    def predict_what_is_nowhere(metrics):
        for column in (metrics, metrics["position_prior"]):
            column["semantic_iou_per_class"] |= {"road": 0.5, "car": 0.1, "sky": 0.5, "fence": 0.0}
        if not is_counted:
            del metrics["semantic_pixels_per_class"]

    text = evaluated(config, tree, predict_what_is_nowhere)
    assert re.findall("<tr><td>([a-z]+)</td>", text.partition("By class")[2]) == [
        "road",
        "sky",
        "car",
    ]


def test_a_baseline_that_is_blank_hides_no_class(config, tree):
    text = evaluated(
        config, tree, lambda metrics: metrics.update(position_prior=SplitMetrics().compute())
    )
    assert "<tr><td>road</td>" in text


def test_figures_say_which_network_they_are_of(config, tree):
    config = dataclasses.replace(config, eval_every=2)
    training.train(dataclasses.replace(config, iterations=2))
    evaluate(config, tree, "cpu")
    assert "the last checkpoint, after 2 iterations." in report(config)[0]
    assert "went on" not in report(config)[0]
    training.train(config, resume=True)
    text, _ = report(config)
    assert "the last checkpoint, after 2 iterations. The training went on since then" in text
    evaluate(config, tree, "cpu", checkpoint="best")
    best = torch.load(config.out / "best.pt", weights_only=True)["iteration"]
    text, _ = report(config)
    assert f"the best checkpoint, after {best} iterations." in text
    assert "went on" not in text


def test_data_set_run_dates_and_versions_are_shown(config, tree, tmp_path):
    training.train(config)
    text, _ = report(config)
    for value in (config.out, tree, f"torch {torch.__version__}", platform.python_version()):
        assert str(value) in text
    assert f"uncertainty_mtl {uncertainty_mtl.__version__}" in text
    assert re.search(r"last trained</span> \d{4}-\d\d-\d\d", text)
    assert re.search(r"page written</span> \d{4}-\d\d-\d\d", text)
    assert "data set of the pictures" not in text
    other = write_tree(tmp_path / "other")
    text, _ = report(config, "--data", other)
    assert f"data set of the pictures</span> {other}" in text


def test_a_learned_weight_is_compared_with_its_optimum_only_where_it_has_that(config):
    line = {
        "loss": {"semantic": 0.5, "depth": 1.0},
        "weight": {"semantic": 1.0, "depth": 1.0},
        "sigma": {"semantic": 1.0, "depth": 1.4},
    }

    def tasks(**fields):
        changed = dataclasses.replace(config, **fields)
        return [row["task"] for row in weight_rows_of(changed, [line])]

    assert tasks() == ["semantic", "depth"]
    assert tasks(depth_noise="per-pixel", form="nll") == ["semantic"]
    assert tasks(form="symmetric") == ["semantic", "depth"]
    assert tasks(form="paper") == []
    assert tasks(constraint="unit_sum") == []


def test_settings_tell_what_differs_from_the_defaults(config):
    changed = {name for name, _, is_changed in settings(config) if is_changed}
    assert {"learning rate", "size", "stages"} <= changed
    assert "weighting" not in changed
    assert ("size", "16x32", True) in settings(config)


def test_a_long_run_makes_no_larger_page():
    def size(count):
        lines = [{"iteration": k, "loss": {"depth": 1.0 + k % 7}} for k in range(count)]
        return len(draw_curves({"run": lines}, "loss", "loss"))

    assert size(50_000) < 2 * size(1_000)


def test_pictures_without_a_checkpoint_are_refused_in_one_line(config, tree, capsys):
    training.train(config)
    (config.out / "last.pt").unlink()
    capsys.readouterr()
    assert main(["report", "--run", str(config.out), "--data", str(tree)]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "leave --data out" in line
    assert not (config.out / "report.html").exists()
