"""Our figures against the official scripts, on rendered scenes with made-up predictions."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from examples.cityscapes.data.files import find_frames
from examples.cityscapes.data.read_image import read_disparity, read_instance_ids, read_label_ids
from examples.cityscapes.data.targets import evaluated_instances, train_ids
from examples.cityscapes.evaluation import official
from examples.cityscapes.evaluation.distances import instance_distances
from examples.cityscapes.evaluation.official_files import Exporter
from examples.cityscapes.labels import IGNORE_INDEX, NUM_CLASSES
from examples.cityscapes.scene.maps import PredictedScene, mean_probability
from examples.cityscapes.scene.panoptic import panoptic_ids, panoptic_image, segments_info
from examples.common.errors import InputError
from examples.common.folders import complete_folder
from examples.rendered_scenes import synthesize
from tests.examples.tiny_tree import write_tree

needs_scripts = pytest.mark.usefixtures("_scripts")


@pytest.fixture
def _scripts():
    pytest.importorskip("cityscapesscripts")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "scenes"
    synthesize(root, train=1, val=4, size=(128, 256), seed=3)
    return root


def truth(frame):
    """Return the true classes, and the true instances numbered from 1 up."""
    ids = read_instance_ids(frame.instance_ids)
    classes = train_ids(torch.from_numpy(read_label_ids(frame.label_ids))).numpy()
    evaluated = evaluated_instances(torch.from_numpy(ids)).numpy()
    values, number = np.unique(evaluated, return_inverse=True)
    number = number.reshape(ids.shape) + (values[0] != 0)
    return classes, number


def perfect(frame):
    classes, instances = truth(frame)
    # What is ignored may be called anything; here it is road, as 255 cannot be predicted.
    classes = np.where(classes == IGNORE_INDEX, 0, classes)
    return PredictedScene(classes, instances, np.linspace(0.5, 1, instances.max()))


def made_up(frame, seed):
    """Return a prediction with blocks of wrong classes, merged and shifted instances."""
    rng = np.random.default_rng([seed, len(frame.stem)])
    classes, instances, _ = perfect(frame)
    height, width = classes.shape
    for _ in range(30):
        y, x = rng.integers(height - 8), rng.integers(width - 16)
        classes[y : y + 8, x : x + 16] = rng.integers(NUM_CLASSES)
    instances = np.roll(instances, 1, axis=1)
    instances = np.where(instances == 2, 1, instances)
    instances = np.where(instances > 2, instances - 1, instances)
    return PredictedScene(classes.astype(np.uint8), instances, rng.random(instances.max()))


def export(out, frames, scene_of):
    exporter = Exporter(out, "val")
    for frame in frames:
        exporter.add(frame.stem, scene_of(frame))
    exporter.finish()
    return out


@needs_scripts
def test_our_class_category_and_instance_iou_equal_the_official_ones(tree, tmp_path):
    frames = find_frames(tree, "val")
    folder = export(tmp_path / "made_up", frames, lambda frame: made_up(frame, 0))
    own, theirs = official.measure_files(frames, folder), official.score(frames, folder)
    for name in official.OWN_FIGURES:
        assert 0.1 < own[name] < 0.95, "the made-up predictions are neither right nor all wrong"
        assert own[name] == pytest.approx(theirs[name], abs=1e-6)
    for name in ("semantic_iou_per_class", "semantic_iiou_per_class"):
        assert own[name] == pytest.approx(theirs[name], abs=1e-6, nan_ok=True)
    assert theirs["largest_difference"] < 1e-6
    assert 0 < theirs["ap"] < theirs["ap50"] < 1
    assert 0 < theirs["pq"] < 1


@needs_scripts
def test_the_truth_itself_scores_one_near_and_far(tree, tmp_path):
    frames = find_frames(tree, "val")
    found = official.score(frames, export(tmp_path / "perfect", frames, perfect))
    figures = (*official.OWN_FIGURES, *official.PRECISIONS, *official.QUALITIES)
    assert {name: found[name] for name in figures} == pytest.approx(dict.fromkeys(figures, 1.0))


@needs_scripts
def test_panoptic_quality_is_the_mean_iou_of_hits_by_hits_and_half_the_misses(tmp_path):
    tree = write_tree(tmp_path / "data", val=1, size=(32, 64))
    (frame,) = find_frames(tree, "val")
    classes, instances = truth(frame)
    car = instances > 0
    half = car & (np.cumsum(car, axis=1) <= car.sum(axis=1, keepdims=True) // 2)
    # A car of 21 columns is seen as one of 11, a hit by its IoU of 11/21, and one of 10 too many.
    split = PredictedScene(classes, np.where(half, 2, instances), np.ones(2))
    exporter = Exporter(tmp_path / "predicted", "val")
    exporter.add(frame.stem, split)
    exporter.finish()
    found = official.score([frame], tmp_path / "predicted")
    expected = 11 / 21 / (1 + 1 / 2)
    assert found["pq_per_class"]["car"] == pytest.approx(expected)
    assert found["pq_things"] == pytest.approx(expected)
    assert found["pq_stuff"] == 1.0
    assert found["pq"] == pytest.approx((expected + 2) / 3)


@needs_scripts
def test_without_label_ids_and_without_distances_the_rest_is_measured(tmp_path):
    tree = write_tree(tmp_path / "data", size=(32, 64), label_ids=False)
    frames = find_frames(tree, "val")
    folder = tmp_path / "predicted"
    exporter = Exporter(folder, "val")
    for frame in frames:
        ids = torch.from_numpy(read_instance_ids(frame.instance_ids))
        classes = train_ids(torch.where(ids >= 1000, ids // 1000, ids)).numpy()
        exporter.add(frame.stem, PredictedScene(classes, (ids >= 1000).int().numpy(), np.ones(1)))
    exporter.finish()
    found = official.score(frames, folder)
    assert found["semantic_iou"] == found["ap"] == 1.0
    assert found["ap100m"] is None
    assert found["largest_difference"] == 0.0


@needs_scripts
def test_a_complaint_of_the_scripts_is_passed_on_in_one_line(tree, tmp_path):
    frames = find_frames(tree, "val")
    folder = export(tmp_path / "small", frames, perfect)
    path = next((folder / "semantic").iterdir())
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(path)
    with pytest.raises(InputError, match=r"the official scripts failed: .*Image widths"):
        official.score(frames, folder)


def test_one_name_in_two_cities_is_refused_before_anything_is_exported(tmp_path):
    tree = write_tree(tmp_path, val=1)
    town = tree / "leftImg8bit/val/town"
    shutil.copytree(town, town.with_name("village"))
    with pytest.raises(InputError, match=r"village/town_.*has the name of .*town/town_.*unique"):
        official.images_to_export(tree)
    town.rename(tree / "leftImg8bit/test")  # the same name in another split is another image
    assert list(official.images_to_export(tree)) == ["val"]


def test_an_empty_test_split_is_one_that_is_not_there(tmp_path):
    tree = write_tree(tmp_path, val=1)
    (tree / "leftImg8bit/test").mkdir()
    (tree / "leftImg8bit/test/.DS_Store").touch()
    assert list(official.images_to_export(tree)) == ["val"]
    shutil.copytree(tree / "leftImg8bit/val/town", tree / "leftImg8bit/test/town")
    assert list(official.images_to_export(tree)) == ["val", "test"]


@needs_scripts
def test_files_with_endings_in_capitals_are_measured_as_well(tmp_path):
    tree = write_tree(tmp_path / "data", size=(32, 64))
    for path in tree.rglob("*_labelIds.png"):
        path.rename(path.with_suffix(".PNG"))
    frames = find_frames(tree, "val")
    found = official.score(frames, export(tmp_path / "perfect", frames, perfect))
    assert found["semantic_iou"] == found["ap"] == 1.0


def test_distance_is_that_of_the_image_s_own_camera(tmp_path):
    tree = write_tree(tmp_path, size=(32, 64))
    frame = find_frames(tree, "val")[0]
    ids = read_instance_ids(frame.instance_ids)
    assert instance_distances(frame, ids) is None
    camera = tree / "camera/val/town" / f"{frame.stem}_camera.json"
    camera.parent.mkdir(parents=True)
    camera.write_text(json.dumps({"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 2000}}))
    frame = find_frames(tree, "val")[0]
    raw = read_disparity(frame.disparity)
    rows, columns = np.nonzero(ids == 26000)
    raw[rows[: len(rows) // 4], columns[: len(rows) // 4]] = 0
    Image.fromarray(raw.astype(np.uint16)).save(frame.disparity)
    found = instance_distances(frame, ids)
    # a disparity of 5 px; a quarter of the pixels is invalid
    assert found[26000].median == pytest.approx(0.2 * 2000 / 5)
    assert found[26000].density == pytest.approx(0.75, abs=0.01)
    raw[rows, columns] = 1
    Image.fromarray(raw.astype(np.uint16)).save(frame.disparity)
    assert instance_distances(frame, ids)[26000] == (np.inf, 1.0)
    camera.write_text("{}")
    with pytest.raises(InputError, match=r"camera\.json: not a readable camera file"):
        instance_distances(frame, ids)


def test_panoptic_files_equal_those_that_the_official_converter_makes_of_the_truth(
    tree, tmp_path, monkeypatch
):
    converter = pytest.importorskip("cityscapesscripts.preparation.createPanopticImgs")
    monkeypatch.setattr(converter, "print", lambda *_, **__: None, raising=False)
    converter.convert2panoptic(str(tree / "gtFine"), str(tmp_path), setNames=["val"])
    table = json.loads((tmp_path / "cityscapes_panoptic_val.json").read_text())
    described = {a["image_id"]: a for a in table["annotations"]}
    for frame in find_frames(tree, "val"):
        theirs = described[frame.stem]
        ids = read_instance_ids(frame.instance_ids)
        assert segments_info(ids) == theirs["segments_info"]
        with Image.open(tmp_path / "cityscapes_panoptic_val" / theirs["file_name"]) as image:
            evaluated = np.isin(ids, [segment["id"] for segment in theirs["segments_info"]])
            np.testing.assert_array_equal(
                panoptic_image(np.where(evaluated, ids, 0)), np.array(image)
            )
    folder = export(tmp_path / "exported", find_frames(tree, "val"), perfect)
    ours = json.loads((folder / "cityscapes_panoptic_val.json").read_text())
    assert ours["images"] == [
        {**i, "file_name": i["id"] + "_leftImg8bit.png"} for i in table["images"]
    ]
    by_id = {c["id"]: c for c in table["categories"]}
    assert {c["id"]: c for c in ours["categories"]} == by_id


def test_an_instance_of_two_classes_gets_the_one_of_most_pixels():
    classes = np.array([[13, 13, 14, 13, 0]])
    instances = np.array([[1, 1, 1, 2, 0]])
    np.testing.assert_array_equal(
        panoptic_ids(classes, instances), [[26000, 26000, 26000, 26001, 7]]
    )
    probabilities = torch.zeros(NUM_CLASSES, 1, 5)
    probabilities[13, 0] = torch.tensor([0.9, 0.6, 0.3, 0.5, 0.0])
    np.testing.assert_allclose(mean_probability(probabilities, classes, instances), [0.6, 0.5])


def test_a_failure_half_way_leaves_the_earlier_predictions_as_they_were(tmp_path):
    out = tmp_path / "official"
    out.mkdir()
    (out / "earlier").touch()

    def fail():
        with complete_folder(out) as partial:
            (partial / "half").touch()
            raise InputError("the disk is full")

    with pytest.raises(InputError, match="full"):
        fail()
    assert [path.name for path in tmp_path.rglob("*")] == ["official", "earlier"]
    with complete_folder(out) as partial:
        (partial / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["official", "whole"]


def test_an_image_without_things_has_an_empty_list(tmp_path):
    empty = np.zeros((4, 8), dtype=np.uint8)
    exporter = Exporter(tmp_path, "val")
    exporter.add("town_000000_000000", PredictedScene(empty, empty.astype(int), np.zeros(0)))
    exporter.finish()
    assert (tmp_path / "instance/town_000000_000000_pred_instances.txt").read_text() == ""
