"""The command line end to end, and what it says about input that it cannot use."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import load_config
from examples.common.errors import InputError
from tests.examples.tiny_tree import write_tree

TRAIN = [
    *("--size", "16x32", "--backbone", "resnet18", "--backbone-weights", "none"),
    *("--iterations", "2", "--batch-size", "2", "--device", "cpu", "--num-workers", "0"),
]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"), train=4)


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", "--data", str(tree), "--out", str(out), *TRAIN]) == 0
    return out


def status(arguments):
    """Run a command and return its exit status, also if argparse exits."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def complaint(arguments, capsys):
    """Return the one line that a refused command prints."""
    capsys.readouterr()
    assert status(arguments) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "image/s]" not in line]
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    return lines[0]


def test_evaluate_writes_the_figures_beside_both_baselines(run, tree, capsys):
    assert status(["evaluate", "--run", run, "--data", tree, "--device", "cpu"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    for column in (metrics, metrics["position_prior"], metrics["untrained"]):
        assert 0 <= column["semantic_iou"] <= column["semantic_iou_present"] <= 1
        assert column["instance_error_px"] > 0
        assert column["depth_error_px"] > 0
    assert "position_prior" in capsys.readouterr().out


def test_evaluate_by_the_official_scripts_prints_and_writes_their_figures(run, tree, capsys):
    pytest.importorskip("cityscapesscripts")
    test_image = tree / "leftImg8bit/test/town/town_000000_000000_leftImg8bit.png"
    test_image.parent.mkdir(parents=True)
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(test_image)
    shutil.copytree(run, elsewhere := run.with_name("official"))
    assert status(["evaluate", "--run", elsewhere, "--data", tree, "--official"]) == 0
    metrics = json.loads((elsewhere / "metrics.json").read_text())
    assert metrics["official"]["largest_difference"] < 1e-6
    # At 16x32 the images are the network's input: both measure the same predictions.
    for name in ("semantic_iou", "category_iou", "semantic_iiou", "category_iiou"):
        assert metrics["official"][name] == pytest.approx(metrics[name], abs=1e-6)
    assert metrics["official"]["ap"] is None, "no car has the 100 pixels that the scripts ask for"
    table = capsys.readouterr().out
    for word in ("paper, 128x256", "63.40", "AP50", "mean of categories"):
        assert word in table
    exported = elsewhere / "official/test/semantic/town_000000_000000_pred_labelIds.png"
    with Image.open(exported) as image:
        assert image.size == (64, 32)
        assert image.mode == "L"
    assert len(list(elsewhere.glob("official/val/semantic/*.png"))) == 2
    assert not list(elsewhere.glob(".official*"))


def test_what_was_measured_stays_when_the_official_scripts_fail(
    run, tree, tmp_path, capsys, monkeypatch
):
    pytest.importorskip("cityscapesscripts")

    def fail(*_):
        raise InputError("the official scripts failed: no reason")

    monkeypatch.setattr("examples.cityscapes.evaluation.official.run_scripts", fail)
    shutil.copytree(run, elsewhere := tmp_path / "run")
    line = complaint(["evaluate", "--run", elsewhere, "--data", tree, "--official"], capsys)
    assert line.endswith(f"no reason; all other figures are in {elsewhere}/metrics.json")
    assert json.loads((elsewhere / "metrics.json").read_text())["semantic_iou"] is not None
    assert len(list(elsewhere.glob("official/val/semantic/*.png"))) == 2


def test_what_official_evaluation_cannot_do_is_said_before_anything_is_done(
    run, tree, tmp_path, capsys, monkeypatch
):
    arguments = ["evaluate", "--run", run, "--data", tree, "--device", "cpu"]
    assert "--min-area" in complaint([*arguments, "--min-area", "-1"], capsys)
    assert "kmeans" in complaint([*arguments, "--clustering", "kmeans"], capsys)
    before = sorted(run.rglob("*"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install cityscapesscripts" in complaint([*arguments, "--official"], capsys)
    assert sorted(run.rglob("*")) == before


def test_a_limit_measures_the_first_images_and_writes_nothing(run, tree, tmp_path, capsys):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    assert status(["evaluate", "--run", run, "--data", tree, "--device", "cpu", "--limit", 1]) == 0
    of_first = capsys.readouterr().out
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    # A dataset that has no other image, and a run of its own for the figures.
    shutil.copytree(tree, one := tmp_path / "one")
    sorted((one / "leftImg8bit/val/town").iterdir())[1].unlink()
    shutil.copytree(run, elsewhere := tmp_path / "run")
    assert status(["evaluate", "--run", elsewhere, "--data", one, "--device", "cpu"]) == 0
    network = {line.split()[0]: line.split()[1] for line in columns(capsys.readouterr().out)}
    assert len(network) > 4
    assert {line.split()[0]: line.split()[1] for line in columns(of_first)} == network
    assert all(line.split()[2:] == ["-", "-"] for line in columns(of_first))
    line = complaint(
        ["evaluate", "--run", run, "--data", tree, "--limit", "1", "--official"], capsys
    )
    assert "--limit: cannot be combined with --official" in line


def columns(printed):
    """Return the lines with the figures of the network and of both baselines."""
    table = printed[printed.index("position_prior") :].split("\n\n")[0]
    return table.splitlines()[1:]


def test_predict_takes_options_of_the_grouping(run, tree, tmp_path):
    image = next((tree / "leftImg8bit/val/town").iterdir())
    flags = ["--clustering", "hdbscan", "--reach", "0.02", "--min-area", "0.1"]
    assert status(["predict", "--run", run, "--image", image, "--out", tmp_path, *flags]) == 0
    with np.load(tmp_path / f"{image.stem}_arrays.npz", allow_pickle=False) as arrays:
        things = arrays["instances"] > 0
        np.testing.assert_array_equal(arrays["panoptic"] >= 1000, things)
        assert np.all(arrays["panoptic"][~things] < 34)


def test_predict_writes_panels_and_arrays(run, tree, tmp_path):
    image = next((tree / "leftImg8bit/val/town").iterdir())
    assert status(["predict", "--run", run, "--image", image, "--out", tmp_path / "p"]) == 0
    with Image.open(tmp_path / "p" / f"{image.stem}_panels.png") as panels:
        assert panels.width > 500
    with np.load(tmp_path / "p" / f"{image.stem}_arrays.npz", allow_pickle=False) as arrays:
        assert arrays["image"].shape == (16, 32, 3)
        assert arrays["classes"].shape == (16, 32)
        assert arrays["classes"].max() < 19
        assert arrays["instances"].shape == (16, 32)
        assert arrays["offsets"].shape == (2, 16, 32)
        assert arrays["inverse_depth"].shape == (16, 32)
        assert arrays["inverse_depth"].min() >= 0


def test_predict_works_for_a_run_without_all_tasks(tree, tmp_path):
    out = tmp_path / "run"
    assert status(["train", "--data", tree, "--out", out, *TRAIN, "--tasks", "instance"]) == 0
    image = next((tree / "leftImg8bit/val/town").iterdir())
    assert status(["predict", "--run", out, "--image", image, "--out", tmp_path]) == 0
    with np.load(tmp_path / f"{image.stem}_arrays.npz", allow_pickle=False) as arrays:
        assert set(arrays) == {"image", "offsets"}


def test_resuming_needs_no_flag_again_and_may_go_further(tree, tmp_path):
    out = tmp_path / "run"
    assert status(["train", "--data", tree, "--out", out, *TRAIN]) == 0
    assert status(["train", "--out", out, "--resume", "--iterations", "3"]) == 0
    assert load_config(out).iterations == 3
    assert len((out / "metrics.jsonl").read_text().splitlines()) == 3


def test_resuming_with_another_setting_is_refused(run, capsys):
    line = complaint(["train", "--out", run, "--resume", "--backbone", "resnet50"], capsys)
    assert "--backbone" in line


def test_a_second_run_into_the_same_folder_is_refused(run, tree, capsys):
    assert "--resume" in complaint(["train", "--data", tree, "--out", run, *TRAIN], capsys)


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--tasks", "semantic,normals"], "normals"),
        (["--size", "16by32"], "16by32"),
        (["--size", "32x32"], r"_leftImg8bit\.png: is 16x32 .* 32x32"),
        (["--weighting", "fixed:1"], "--weighting"),
        (["--backbone", "vgg"], "vgg"),
        (["--backbone-weights", "nowhere.pt"], r"nowhere\.pt"),
        (["--batch-size", "100"], "--batch-size"),
        (["--batch-size", "1"], "--batch-size"),
        (["--iterations", "many"], "many"),
        (["--learning-rate", "nan"], "--learning-rate"),
        (["--unknown-flag", "1"], "--unknown-flag"),
    ],
)
def test_bad_flags_end_in_one_line_and_write_nothing(tree, tmp_path, capsys, flags, named):
    out = tmp_path / "run"
    line = complaint(["train", "--data", tree, "--out", out, *TRAIN, *flags], capsys)
    assert re.search(named, line)
    assert not out.exists()


def missing_folder(root):
    return root / "nowhere", "nowhere"


def missing_labels(root):
    path = next(root.glob("gtFine/train/*/*000002*instanceIds.png"))
    path.unlink()
    return root, path.name


def unreadable_image(root):
    path = next(root.glob("leftImg8bit/train/*/*000002*.png"))
    path.write_bytes(b"not a PNG")
    return root, path.name


def truncated_labels(root):
    path = next(root.glob("gtFine/train/*/*000002*labelIds.png"))
    path.write_bytes(path.read_bytes()[:50])
    return root, path.name


def truncated_disparity(root):
    path = next(root.glob("disparity/train/*/*000002*.png"))
    path.write_bytes(path.read_bytes()[:50])
    return root, path.name


@pytest.mark.parametrize(
    "damage",
    [missing_folder, missing_labels, unreadable_image, truncated_labels, truncated_disparity],
)
def test_damaged_data_end_in_one_line_naming_the_file(tmp_path, capsys, damage):
    data, named = damage(write_tree(tmp_path / "data", train=4))
    out = tmp_path / "run"
    assert named in complaint(["train", "--data", data, "--out", out, *TRAIN], capsys)
    assert not out.exists()


def test_a_run_folder_that_holds_no_run_is_named(tmp_path, tree, run, capsys):
    line = complaint(["evaluate", "--run", tmp_path / "none", "--data", tree], capsys)
    assert "no such run folder" in line
    (tmp_path / "empty").mkdir()
    line = complaint(["evaluate", "--run", tmp_path / "empty", "--data", tree], capsys)
    assert "config.json" in line
    (tmp_path / "empty/config.json").write_text((run / "config.json").read_text())
    line = complaint(["evaluate", "--run", tmp_path / "empty", "--data", tree], capsys)
    assert "last.pt" in line
    (tmp_path / "empty/last.pt").write_bytes(b"noise")
    line = complaint(["evaluate", "--run", tmp_path / "empty", "--data", tree], capsys)
    assert "last.pt" in line
    (tmp_path / "empty/config.json").write_text('{"data": 1}')
    line = complaint(["evaluate", "--run", tmp_path / "empty", "--data", tree], capsys)
    assert "config.json" in line


def test_an_image_that_cannot_be_predicted_is_named_and_nothing_is_written(run, tmp_path, capsys):
    out = tmp_path / "out"
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a PNG")
    assert "bad.png" in complaint(["predict", "--run", run, "--image", bad, "--out", out], capsys)
    bad.unlink()
    assert "bad.png" in complaint(["predict", "--run", run, "--image", bad, "--out", out], capsys)
    assert not out.exists()


def test_an_output_folder_that_cannot_be_made_is_named(tree, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    assert str(out) in complaint(["train", "--data", tree, "--out", out, *TRAIN], capsys)


def test_help_lists_the_commands(capsys):
    assert status(["--help"]) == 0
    text = capsys.readouterr().out
    for command in ("synthesize", "train", "evaluate", "predict", "demo"):
        assert command in text
