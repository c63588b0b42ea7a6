"""Predicting images and folders of them: what is written, where, and what is never lost."""

import dataclasses
import io
import re
import shutil
import time
from contextlib import suppress

import numpy as np
import pytest
import torch
from PIL import Image

from examples.cityscapes.__main__ import main
from examples.cityscapes.commands.images import images_below
from examples.cityscapes.commands.prediction_files import files_to_write
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.protocols import THREE_TASK, TWO_TASK
from examples.cityscapes.report.pictures import draw_overlay, draw_panels, outlines
from examples.cityscapes.scene.colors import color_classes
from examples.cityscapes.scene.grouping import Grouping
from examples.cityscapes.scene.maps import input_size, predict_maps, predict_scene
from examples.cityscapes.training import train as training
from examples.common.errors import InputError
from examples.common.stage_clock import StageClock
from tests.examples.tiny_run import TINY
from tests.examples.tiny_tree import write_tree

SIZE = TINY["size"]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"), val=5, size=(32, 64))


@pytest.fixture(scope="module")
def config(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    config = TrainConfig(data=tree, out=out, **{**TINY, "eval_every": 4})
    training.train(config)
    return config


@pytest.fixture(scope="module")
def model(config):
    return load_trained(config).eval()


def predict(config, image, out, *flags):
    paths = ["--run", config.out, "--image", image, "--out", out]
    quick = ["--device", "cpu", "--clustering", "hdbscan"]  # OPTICS takes seconds an image
    return main([str(a) for a in ("predict", *paths, *quick, *flags)])


def arrays_of(path):
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def endings(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*"))


def test_a_folder_is_predicted_at_the_size_of_its_images_in_whatever_batches(
    config, tree, tmp_path, capsys
):
    images = tmp_path / "images"
    for split, count in (("train", 1), ("val", 2)):
        for image in sorted((tree / f"leftImg8bit/{split}/town").iterdir())[:count]:
            (images / split / "town").mkdir(parents=True, exist_ok=True)
            shutil.copy(image, images / split / "town")
    for size in (1, 2):
        assert predict(config, images, tmp_path / f"{size}", "--batch-size", size) == 0
        assert "3 images predicted" in capsys.readouterr().out
    assert endings(tmp_path / "1") == endings(tmp_path / "2")
    found = sorted((tmp_path / "1").rglob("*_arrays.npz"))
    folders = {path.parent.relative_to(tmp_path / "1").as_posix() for path in found}
    assert folders == {"train/town", "val/town"}
    assert len(found) == 3
    for path in found:
        one = arrays_of(path)
        other = arrays_of(tmp_path / "2" / path.relative_to(tmp_path / "1"))
        assert one["classes"].shape == (32, 64)
        for name in ("offsets", "inverse_depth"):
            np.testing.assert_allclose(one[name], other[name], atol=1e-4)


def test_the_prediction_for_a_batch_is_that_of_every_image_alone(config, model):
    rng = np.random.default_rng(0)
    shapes = [(32, 64), (16, 32), (50, 100)]
    images = [rng.integers(0, 255, (*shape, 3)).astype(np.uint8) for shape in shapes]
    together = predict_maps(model, images, SIZE, CPU, THREE_TASK)
    for image, maps in zip(images, together, strict=True):
        (alone,) = predict_maps(model, [image], SIZE, CPU, THREE_TASK)
        for task, values in maps.items():
            assert values.shape[-2:] == image.shape[:2]
            torch.testing.assert_close(values, alone[task], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(maps["semantic"].sum(0), torch.ones(image.shape[:2]))
        scene = predict_scene(model, image, SIZE, CPU, Grouping())
        np.testing.assert_array_equal(scene.classes, alone["semantic"].argmax(0).numpy())


def test_vectors_and_disparities_are_in_pixels_of_the_image(model):
    # Of one colour, so that an image of any size looks the same to the network.
    image = np.full((*SIZE, 3), 99, np.uint8)
    (small,) = predict_maps(model, [image], SIZE, CPU, THREE_TASK)
    outputs = model(torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0))
    torch.testing.assert_close(small["depth"], outputs["depth"][0].detach())
    large_image = np.full((3 * SIZE[0], 3 * SIZE[1], 3), 99, np.uint8)
    (large,) = predict_maps(model, [large_image], SIZE, CPU, THREE_TASK)
    for task in ("instance", "depth"):
        torch.testing.assert_close(large[task][:, 1::3, 1::3], 3 * small[task])
    (unitless,) = predict_maps(model, [large_image], SIZE, CPU, TWO_TASK)  # such as that of arrays
    torch.testing.assert_close(unitless["depth"][:, 1::3, 1::3], small["depth"])


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1024, 2048), (128, 256)),
        ((33, 66), (128, 256)),
        ((720, 1280), (136, 240)),
        ((500, 500), (184, 184)),
        ((10, 4000), (8, 3624)),
    ],
)
def test_an_image_of_another_shape_is_seen_undistorted_with_as_many_pixels(shape, expected):
    assert input_size(shape, (128, 256)) == expected


def test_an_image_of_another_shape_is_predicted_at_its_size(config, tmp_path):
    for name, shape in (("square.png", (40, 40, 3)), ("tall.jpg", (64, 24, 3))):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(np.full(shape, 99, np.uint8)).save(tmp_path / "in" / name)
    assert predict(config, tmp_path / "in", tmp_path / "out", "--batch-size", 8) == 0
    assert arrays_of(tmp_path / "out/square_arrays.npz")["offsets"].shape == (2, 40, 40)
    assert arrays_of(tmp_path / "out/tall_arrays.npz")["classes"].shape == (64, 24)
    assert "classes.png" in endings(tmp_path / "out")


def test_names_keep_their_folders_and_never_collide(tmp_path):
    for name in ("b/f.1.png", "a/f.1.png", "a/f.2.png", "out/old.png", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = images_below(tmp_path, tmp_path / "out")
    assert [name.as_posix() for name in found] == ["a/f.1", "a/f.2", "b/f.1"]
    (tmp_path / "a/f.1.JPG").touch()
    found = images_below(tmp_path, tmp_path / "out")
    assert [n.as_posix() for n in found] == ["a/f.1.JPG", "a/f.1.png", "a/f.2", "b/f.1"]
    (tmp_path / "a/f.1.png.bmp").touch()
    found = images_below(tmp_path, tmp_path / "out")
    names = ["a/f.1.JPG", "a/f.1.png", "a/f.1.png.bmp", "a/f.2", "b/f.1"]
    assert [n.as_posix() for n in found] == names


def test_of_a_dataset_only_the_images_are_predicted_not_the_labels(tree, tmp_path):
    found = images_below(tree, tmp_path)
    assert len(found) == 6 + 5
    assert all(name.as_posix().startswith("leftImg8bit/") for name in found)


def test_a_folder_without_images_or_as_its_own_output_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no images .*\.png"):
        images_below(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match=r"--out: .*choose another"):
        images_below(tmp_path, tmp_path)
    with pytest.raises(InputError, match="no such file or folder"):
        images_below(tmp_path / "none", tmp_path)


def test_a_corrupt_image_is_named_and_what_came_before_it_stays(config, tree, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(tree / "leftImg8bit/val/town", folder)
    damaged = sorted(folder.iterdir())[3]
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert predict(config, folder, tmp_path / "out", "--batch-size", 2) == 2
    message = capsys.readouterr().err
    assert damaged.name in message
    assert "3 of 5 images are done; --skip-bad leaves out such images" in message
    assert len(list((tmp_path / "out").glob("*_panels.png"))) == 3
    assert len(list((tmp_path / "out").glob("*_arrays.npz"))) == 3
    assert not list((tmp_path / "out").glob("*.partial"))


def test_bad_images_are_left_out_on_request_and_listed_at_the_end(config, tree, tmp_path, capsys):
    folder = tmp_path / "in"
    shutil.copytree(tree / "leftImg8bit/val/town", folder)
    images = sorted(folder.iterdir())
    images[0].write_text("no image")
    images[3].write_bytes(images[3].read_bytes()[:100])
    assert predict(config, folder, tmp_path / "out", "--batch-size", 2, "--skip-bad") == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[0] for line in lines] == ["left out", "left out", "error"]
    assert images[0].name in lines[0]
    assert images[3].name in lines[1]
    assert "2 of 5 images cannot be used" in lines[2]
    assert len(list((tmp_path / "out").glob("*_arrays.npz"))) == 3


@pytest.fixture
def predicted(config, tree, tmp_path):
    """Return two images and the folder of their predictions, from here on repeated."""
    shutil.copytree(tree / "leftImg8bit/val/town", tmp_path / "in")
    for image in sorted((tmp_path / "in").iterdir())[2:]:
        image.unlink()
    assert predict(config, tmp_path / "in", tmp_path / "out") == 0
    return tmp_path / "in", tmp_path / "out"


def times(folder):
    """Return by image when its predictions were written last."""
    return [path.stat().st_mtime_ns for path in sorted(folder.glob("*_panels.png"))]


def test_a_repeated_command_predicts_only_what_is_not_finished(config, predicted, capsys):
    images, out = predicted
    before = times(out)
    assert predict(config, images, out, "--batch-size", 2) == 0
    assert times(out) == before
    assert "2 images predicted" in (said := capsys.readouterr().out)
    assert "2 of them by an earlier command" in said
    next(out.glob("*000000_000000*overlay.png")).unlink()
    assert predict(config, images, out) == 0
    now = times(out)
    assert (now[0] > before[0], now[1]) == (True, before[1])
    assert len(list(out.glob("*overlay.png"))) == 2
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 2


def spoil_record(images, out):
    record = out / "predictions.jsonl"
    record.write_text(record.read_text()[:-30] + "\n[]\n{}\n")


def replace_image(images, out):
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(sorted(images.iterdir())[1])


@pytest.mark.parametrize("change", [spoil_record, replace_image])
def test_what_is_not_surely_finished_is_predicted_again(config, predicted, change):
    images, out = predicted
    before = times(out)
    change(images, out)
    assert predict(config, images, out) == 0
    now = times(out)
    assert (now[0], now[1] > before[1]) == (before[0], True)
    assert len((out / "predictions.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("flags", [[], ["--min-area", "0.1"]], ids=["checkpoint", "option"])
def test_another_checkpoint_or_option_predicts_everything_again(config, predicted, tmp_path, flags):
    images, out = predicted
    before = times(out)
    shutil.copytree(config.out, tmp_path / "run")
    moved = dataclasses.replace(config, out=tmp_path / "run")
    assert predict(moved, images, out) == 0
    assert times(out) == before
    if not flags:
        checkpoint = torch.load(moved.out / "last.pt", weights_only=True)
        checkpoint["model"]["decoders.depth.1.bias"] += 1
        torch.save(checkpoint, moved.out / "last.pt")
    assert predict(moved, images, out, *flags) == 0
    assert all(now > then for now, then in zip(times(out), before, strict=True))


def test_the_predictions_for_an_image_appear_together_or_not_at_all(config, predicted, capsys):
    images, out = predicted
    before = {path: path.read_bytes() for path in out.glob("*_0*")}
    last = sorted(out.glob("*_arrays.npz"))[0]
    last.with_name(last.name + ".partial").symlink_to("/dev/full")
    assert predict(config, images, out, "--min-area", "0.1") == 2
    assert f"error: {last}: no space left" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.glob("*_0*")} == before
    # The files are those of the first command, but the record vouches for none of them any more.
    assert (out / "predictions.jsonl").read_text() == ""


@pytest.mark.parametrize("shape", [(640, 20), (20, 640), (100, 200)])
def test_the_panels_of_any_image_are_a_picture_of_moderate_size(shape):
    arrays = {
        "image": np.zeros((*shape, 3), np.uint8),
        "classes": np.zeros(shape, np.uint8),
        "inverse_depth": np.ones(shape, np.float32),
    }
    with Image.open(io.BytesIO(draw_panels(arrays, THREE_TASK))) as picture:
        assert picture.width == 1200
        assert picture.height < 2500


def test_the_best_checkpoint_is_used_on_request_and_named_where_there_is_none(
    config, tree, tmp_path, capsys
):
    image = next((tree / "leftImg8bit/val/town").iterdir())
    best = torch.load(config.out / "best.pt", weights_only=True)["model"]
    chosen = load_trained(config, "best").state_dict()
    assert all(torch.equal(chosen[name], value) for name, value in best.items())
    shutil.copytree(config.out, elsewhere := tmp_path / "run")
    (elsewhere / "best.pt").unlink()
    flags = ["--run", elsewhere, "--image", image, "--out", tmp_path / "o", "--checkpoint", "best"]
    assert main([str(flag) for flag in ("predict", *flags)]) == 2
    assert "--eval-every" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        ("arrays", {"arrays.npz"}),
        ("overlay", {"overlay.png", "classes.png"}),
        ("arrays,panels", {"arrays.npz", "panels.png"}),
        (None, {"arrays.npz", "overlay.png", "panels.png", "classes.png"}),
    ],
)
def test_only_the_chosen_files_are_written(config, tree, tmp_path, write, expected):
    image = next((tree / "leftImg8bit/val/town").iterdir())
    flags = [] if write is None else ["--write", write]
    assert predict(config, image, tmp_path, *flags) == 0
    found = {name.rpartition("_")[2] for name in endings(tmp_path)}
    assert found == expected | {"predictions.jsonl"}


@pytest.mark.parametrize(
    ("write", "message"),
    [
        ("panels,pictures", "--write: should be some of panels,overlay,uncertainty,arrays"),
        ("", "--write: should be some of"),
        ("uncertainty", "--write: uncertainty needs the option --uncertainty"),
    ],
)
def test_files_that_cannot_be_written_are_refused(config, tree, tmp_path, capsys, write, message):
    image = next((tree / "leftImg8bit/val/town").iterdir())
    with suppress(SystemExit):  # by argparse
        assert predict(config, image, tmp_path / "out", "--write", write) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_overlay_needs_classes_and_is_left_out_where_nobody_asks_for_it():
    with pytest.raises(InputError, match="--write: overlay needs a network that was trained on"):
        files_to_write(("overlay",), ("instance", "depth"), with_uncertainty=False)
    found = files_to_write(None, ("instance", "depth"), with_uncertainty=True)
    assert found == ("panels", "uncertainty", "arrays")


def test_a_limit_predicts_the_first_images_by_name(config, tree, tmp_path, capsys):
    images = tree / "leftImg8bit/val/town"
    for limit, before in ((2, ""), (4, ", 2 of them by an earlier command")):
        flags = ["--limit", limit, "--write", "panels"]
        assert predict(config, images, tmp_path, *flags) == 0
        assert f"{limit} images predicted in {tmp_path}{before}\n" in capsys.readouterr().out
        expected = [f"{p.stem}_panels.png" for p in sorted(images.iterdir())[:limit]]
        assert sorted(p.name for p in tmp_path.glob("*_panels.png")) == expected


def test_the_seconds_of_each_stage_are_printed_for_new_images(config, tree, tmp_path, capsys):
    images = tree / "leftImg8bit/val/town"
    start = time.perf_counter()
    assert predict(config, images, tmp_path, "--limit", 3) == 0
    passed = time.perf_counter() - start
    (line,) = capsys.readouterr().err.splitlines()
    number = r"(\d+\.\d\d)"
    stages = ", ".join(f"{s} {number}" for s in ("reading", "network", "clustering", "writing"))
    found = re.fullmatch(f"seconds for 3 images: {stages}", line)
    assert found, line
    assert float(found[4]) > 0.05, "three figures of matplotlib"
    assert sum(map(float, found.groups())) < passed + 0.02
    assert predict(config, images, tmp_path, "--limit", 3) == 0
    assert capsys.readouterr().err == ""


def test_a_clock_counts_only_what_happens_inside_its_stages(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    clock = StageClock()

    def items():
        for _ in range(3):
            now[0] += 1.0
            yield
        now[0] += 0.5  # to find that there are no more

    for _ in clock.each("reading", items()):
        now[0] += 100.0
        with clock.stage("writing"):
            now[0] += 10.0
    with suppress(ValueError), clock.stage("writing"):
        now[0] += 0.25
        raise ValueError
    assert clock.seconds == {"reading": 3.5, "writing": 30.25}
    assert clock.summary() == "reading 3.50, writing 30.25"


def test_the_overlay_blends_half_and_half_and_outlines_every_instance():
    image = np.full((9, 12, 3), 100, np.uint8)
    classes = np.zeros((9, 12), np.uint8)
    classes[2:7, 2:10] = 13
    instances = np.zeros((9, 12), np.int32)
    instances[2:7, 2:6], instances[2:7, 6:10] = 1, 2
    with Image.open(io.BytesIO(draw_overlay(image, classes, instances, THREE_TASK))) as picture:
        drawn = np.array(picture).astype(int)
    white = (drawn == 255).all(axis=2)
    # Two touching boxes of 5x4: all but the 3x2 pixels inside of each.
    assert white.sum() == 2 * (5 * 4 - 3 * 2)
    assert not white[instances == 0].any()
    expected = (100 + color_classes(classes).astype(int)) / 2
    assert np.abs(drawn - expected)[~white].max() <= 0.5


def test_outlines_grow_inwards_and_stop_at_the_middle():
    instances = np.zeros((20, 20), np.int32)
    instances[4:16, 4:16] = 7
    for thickness in (1, 2, 3):
        assert outlines(instances, thickness).sum() == 144 - (12 - 2 * thickness) ** 2
    assert outlines(instances, 9).sum() == 144
    assert not outlines(np.zeros((3, 3), np.int32)).any()
    # At the border of the picture an instance goes on.
    assert not outlines(np.ones((5, 5), np.int32)).any()
