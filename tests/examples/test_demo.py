"""The demo at its smallest size, and the report that it writes."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from examples.cityscapes.__main__ import main
from examples.cityscapes.commands import demo as demo_module
from examples.cityscapes.config import load_config
from examples.cityscapes.report.curves import running_mean
from examples.cityscapes.report.weights import weight_rows
from examples.cityscapes.scene.colors import color_disparity, color_instances, number_alike

SMALLEST = ["--iterations", "3", "--train-scenes", "8", "--val-scenes", "4", "--size", "32x64"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo") / "demo"
    assert main(["demo", "--out", str(out), "--compare", *SMALLEST]) == 0
    return out


class Page(HTMLParser):
    """Collects what a browser would have to fetch, and the pictures."""

    def __init__(self, text):
        super().__init__()
        self.open_tags, self.fetched, self.pictures, self.captions = [], [], 0, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):  # noqa: D102 (the base class names it)
        attrs = dict(attrs)
        self.pictures += tag == "img"
        self.fetched += [
            attrs[name]
            for name in ("src", "href", "xlink:href")
            if name in attrs and not attrs[name].startswith(("data:", "#"))
        ]
        self.open_tags += [tag] if tag in ("table", "svg", "figcaption", "div") else []

    def handle_data(self, data):  # noqa: D102
        if self.open_tags and self.open_tags[-1] == "figcaption":
            self.captions.append(data)

    def handle_endtag(self, tag):  # noqa: D102
        if self.open_tags and self.open_tags[-1] == tag:
            self.open_tags.pop()


def test_the_report_is_one_file_with_curves_and_four_scenes(demo):
    text = (demo / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.fetched == []
    assert page.open_tags == []
    assert "<link" not in text
    assert "<script" not in text
    assert not re.search(r"url\((?!#)|@import", text)
    assert text.count("<svg") == 3
    assert page.pictures == 4 * (1 + 3 * 3)  # input; two predictions and the truth of three tasks
    assert "inverse depth, predicted with learned weights" in page.captions
    assert "inverse depth, true" in page.captions
    assert "prefers-color-scheme: dark" in text
    assert "Stopped early" not in text


def test_both_runs_can_be_evaluated_from_where_they_ended_up(demo):
    for name in ("uncertainty", "equal"):
        config = load_config(demo / name)
        assert config.data == demo / "scenes"
        assert config.data.is_dir()
        assert main(["evaluate", "--run", str(demo / name), "--data", str(config.data)]) == 0


def test_a_second_demo_replaces_the_first_and_leaves_nothing_beside_it(demo):
    (demo / "mark").touch()
    assert main(["demo", "--out", str(demo), *SMALLEST]) == 0
    assert not (demo / "mark").exists()
    assert not (demo / "equal").exists()
    assert [path.name for path in demo.parent.iterdir()] == ["demo"]


def test_a_folder_that_is_no_demo_is_not_replaced(tmp_path, capsys):
    (tmp_path / "report.html").touch()
    assert main(["demo", "--out", str(tmp_path), *SMALLEST]) == 2
    assert "something other than an earlier demo" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    "bad",
    [["--size", "4x8"], ["--train-scenes", "3"], ["--seed", "x"], ["--seed", str(2**63)]],
)
def test_a_setting_that_makes_no_sense_leaves_nothing_behind(tmp_path, bad):
    try:
        status = main(["demo", "--out", str(tmp_path / "demo"), *SMALLEST, *bad])
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert list(tmp_path.iterdir()) == []


def test_when_the_time_runs_out_the_report_and_stderr_say_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo_module, "TRAINING_SECONDS", 0)
    assert main(["demo", "--out", str(tmp_path / "demo"), *SMALLEST]) == 0
    assert "stopped after 1 of 3 iterations" in capsys.readouterr().err
    assert "Stopped early." in (tmp_path / "demo/report.html").read_text(encoding="utf-8")


def test_a_weight_is_compared_with_c_over_the_recent_loss():
    lines = [
        {
            "loss": {"semantic": 9.0 if k < 50 else 0.25, "depth": None},
            "weight": {"semantic": 2.2, "depth": 1.0},
            "sigma": {"semantic": 0.7, "depth": 1.4},
        }
        for k in range(150)
    ]
    (row,) = weight_rows(lines)
    assert row["task"] == "semantic"
    assert row["optimum"] == pytest.approx(2.0)
    assert row["deviation"] == pytest.approx(0.1)


def test_the_running_mean_starts_with_what_there_is():
    np.testing.assert_allclose(running_mean(np.array([1.0, 3.0, 5.0]), 2), [1, 2, 4])


def test_instances_have_colours_of_their_own_and_nothing_is_black_but_background():
    colors = color_instances(np.arange(26)[None])[0]
    assert colors[0].tolist() == [0, 0, 0]
    assert len({tuple(color) for color in colors.tolist()}) == 26


def test_instances_take_the_number_of_the_true_one_that_they_cover_most():
    truth = np.array([[26007, 26007, 26007, 24001, 24001, 0, 0]])
    predicted = np.array([[1, 1, 2, 2, 2, 3, 0]])
    renumbered, true = number_alike(predicted, truth)
    assert true.tolist() == [[2, 2, 2, 1, 1, 0, 0]]
    assert renumbered.tolist() == [[2, 2, 1, 1, 1, 3, 0]]


def test_maps_without_instances_can_be_numbered_alike():
    nothing = np.zeros((2, 3), dtype=int)
    assert (number_alike(nothing, nothing)[0] == 0).all()
    assert number_alike(nothing + 1, nothing)[0].tolist() == [[1] * 3] * 2


def test_near_is_bright_and_unknown_is_grey():
    far, near, unknown = color_disparity(np.array([[0.0, 9.0, np.nan]]), 10.0)[0].astype(int)
    assert near.sum() > far.sum()
    assert unknown.tolist() == [128, 128, 128]
