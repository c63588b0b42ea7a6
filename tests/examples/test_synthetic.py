"""The synthetic street scenes: files, ids, geometry, and how hard they are."""

import json
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.ensemble import RandomForestClassifier
from torchvision.datasets import Cityscapes

from examples.cityscapes.labels import LABEL_ID, THING_TRAIN_IDS, TRAIN_CLASSES
from examples.common.errors import InputError
from examples.rendered_scenes import sample_scene, synthesize, write
from examples.rendered_scenes.disparity import decode, encode, seen_by_both

SIZE = (64, 128)
ROAD, SIDEWALK, TERRAIN, POLE, SKY = (
    LABEL_ID[n] for n in ("road", "sidewalk", "terrain", "pole", "sky")
)
ON_FEET = tuple(LABEL_ID[n] for n in ("person", "bicycle", "motorcycle"))
GROUND = (ROAD, SIDEWALK, TERRAIN)
CLASSES = tuple(c.id for c in TRAIN_CLASSES)
INSTANCE_CLASSES = tuple(TRAIN_CLASSES[k].id for k in THING_TRAIN_IDS)


@pytest.fixture(scope="module")
def scenes():
    return [sample_scene("train", index, size=SIZE, seed=1) for index in range(120)]


@pytest.fixture(scope="module")
def large_scenes():
    return [sample_scene("val", index, size=(128, 256), seed=2) for index in range(25)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("synthetic") / "tree"
    synthesize(root, train=4, val=3, size=SIZE, seed=5)
    return root


def _files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def _disparity(scene):
    raw = scene.disparity.astype(float)
    return np.where(raw > 0, (raw - 1) / 256, np.nan)


def test_common_scenes_have_twelve_classes():
    rare = {"wall", "fence", "traffic light", "terrain", "bus", "train", "motorcycle"}
    common = {c.id for c in TRAIN_CLASSES if c.name not in rare}
    scenes = (
        sample_scene("train", index, size=SIZE, seed=1, classes="common") for index in range(40)
    )
    seen = set().union(*(np.unique(scene.label_ids).tolist() for scene in scenes))
    assert seen & set(CLASSES) == common


# Files


def test_every_scene_has_the_five_official_files_and_nothing_else_is_written(tree):
    pattern = re.compile(
        r"(leftImg8bit|gtFine|disparity|camera)/(train|val)/(?P<city>[a-z]+)/(?P=city)_\d{6}_\d{6}_"
        r"(leftImg8bit\.png|gtFine_labelIds\.png|gtFine_instanceIds\.png|disparity\.png|camera\.json)"
    )
    names = list(_files(tree))
    assert len(names) == 5 * (4 + 3)
    assert all(pattern.fullmatch(name) for name in names)
    cities = {s: {n.split("/")[2] for n in names if f"/{s}/" in n} for s in ("train", "val")}
    assert not cities["train"] & cities["val"]


@pytest.mark.parametrize(("split", "count"), [("train", 4), ("val", 3)])
def test_the_folder_is_one_that_torchvision_reads(tree, split, count):
    data = Cityscapes(str(tree), split=split, mode="fine", target_type=["semantic", "instance"])
    assert len(data) == count
    for image, (labels, instances) in data:
        assert (image.mode, image.size) == ("RGB", (128, 64))
        assert labels.mode == "L"
        assert instances.mode.startswith("I")
        instances = np.asarray(instances).astype(int)
        expected = np.where(instances >= 1000, instances // 1000, instances)
        assert np.array_equal(np.asarray(labels), expected)


def test_disparity_files_hold_16_bits(tree):
    for path in tree.glob("disparity/*/*/*.png"):
        with Image.open(path) as image:
            assert image.mode.startswith("I")
            assert np.asarray(image).max() > 255


def test_the_camera_file_is_the_real_calibration_scaled_to_the_image(tree):
    seen = set()
    for path in tree.glob("camera/*/*/*.json"):
        camera = json.loads(path.read_text())
        assert set(camera) == {"extrinsic", "intrinsic"}
        assert set(camera["extrinsic"]) == {"baseline", "pitch", "roll", "x", "y", "yaw", "z"}
        assert set(camera["intrinsic"]) == {"fx", "fy", "u0", "v0"}
        seen.add((camera["extrinsic"]["baseline"], round(camera["intrinsic"]["fx"] * 16, 6)))
    assert seen == {(0.209313, 2262.52), (0.222126, 2268.36)}


def test_the_same_seed_writes_the_same_bytes_whatever_the_number_of_scenes(tree, tmp_path):
    synthesize(tmp_path / "fewer", train=2, val=1, size=SIZE, seed=5)
    synthesize(tmp_path / "other", train=2, val=1, size=SIZE, seed=6)
    all_files, fewer, other = _files(tree), _files(tmp_path / "fewer"), _files(tmp_path / "other")
    assert fewer.items() <= all_files.items()
    assert fewer.keys() == other.keys()
    assert all(fewer[name] != other[name] for name in fewer if "camera" not in name)


def test_training_and_validation_scenes_differ():
    train, val = (sample_scene(split, 0, size=SIZE, seed=5) for split in ("train", "val"))
    assert not np.array_equal(train.image, val.image)


@pytest.mark.parametrize("size", [(32, 64), (48, 160), (256, 256)])
def test_any_size_from_32_by_64_gives_a_scene(size):
    scene = sample_scene("train", 0, size=size, seed=0)
    assert scene.image.shape == (*size, 3)
    assert scene.label_ids.shape == scene.instance_ids.shape == scene.disparity.shape == size


# What is refused, and what is left behind


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"train": 0}, r"--train should be at least 1\. Found 0"),
        ({"val": -2}, r"--val should be at least 1\. Found -2"),
        ({"size": (31, 64)}, r"--size should be at least 32x64.*Found 31x64"),
        ({"size": (64, 32)}, r"--size should be at least 32x64.*Found 64x32"),
        ({"seed": -1}, r"--seed should be at least 0\. Found -1"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        synthesize(tmp_path / "out", **{"train": 1, "val": 1, "size": SIZE, "seed": 0, **wrong})
    assert not any(tmp_path.iterdir())


def test_a_folder_that_is_taken_is_refused_and_left_alone(tree):
    before = _files(tree)
    with pytest.raises(InputError, match=rf"{re.escape(str(tree))}.*Choose another --out"):
        synthesize(tree, train=1, val=1, size=SIZE, seed=0)
    assert _files(tree) == before


def test_an_empty_folder_is_filled(tmp_path):
    synthesize(tmp_path, train=1, val=1, size=SIZE, seed=0)
    assert len(_files(tmp_path)) == 10


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failure_midway_leaves_nothing_behind(tmp_path, monkeypatch, error):
    def interrupted(split, index, **options):
        if (split, index) == ("val", 0):
            raise error
        return sample_scene(split, index, **options)

    monkeypatch.setattr(write, "sample_scene", interrupted)
    with pytest.raises(type(error)):
        synthesize(tmp_path / "out", train=2, val=1, size=SIZE, seed=0)
    assert not any(tmp_path.iterdir())


def test_what_a_killed_call_has_left_is_gone_after_the_next(tree, tmp_path):
    script = f"""
import os, signal
from pathlib import Path
from examples.rendered_scenes import synthesize, write
render = write.sample_scene
def render_or_die(split, index, **options):
    if split == "val":
        os.kill(os.getpid(), signal.SIGKILL)
    return render(split, index, **options)
write.sample_scene = render_or_die
synthesize(Path({str(tmp_path / "out")!r}), train=4, val=3, size={SIZE}, seed=5)
"""
    process = subprocess.run([sys.executable, "-c", script], check=False)  # noqa: S603
    assert process.returncode == -signal.SIGKILL
    assert any(tmp_path.iterdir())
    assert not (tmp_path / "out").exists()
    synthesize(tmp_path / "out", train=4, val=3, size=SIZE, seed=5)
    assert _files(tmp_path / "out") == _files(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# Ids


def test_instances_of_a_class_are_numbered_from_zero_without_a_gap(scenes):
    for scene in scenes:
        instances = np.unique(scene.instance_ids[scene.instance_ids >= 1000]).tolist()
        for class_id in INSTANCE_CLASSES:
            numbers = [k % 1000 for k in instances if k // 1000 == class_id]
            assert numbers == list(range(len(numbers)))
        assert np.isin(scene.label_ids, INSTANCE_CLASSES).tolist() == (
            (scene.instance_ids >= 1000).tolist()
        )


@pytest.mark.parametrize("share", [0, 8 / 32768], ids=["any pixel", "8 of 128x256 pixels"])
def test_a_scene_shows_3_to_25_instances(scenes, large_scenes, share):
    for scene in (*scenes, *large_scenes):
        ids, pixels = np.unique(scene.instance_ids, return_counts=True)
        count = np.sum((ids >= 1000) & (pixels > share * scene.label_ids.size - 1))
        assert 3 <= count <= 25


def test_each_of_the_19_classes_is_common_enough_to_be_learned(scenes):
    share = np.bincount(np.stack([s.label_ids for s in scenes]).ravel(), minlength=256)
    share = share / share.sum()
    assert set(np.flatnonzero(share)) == set(CLASSES)
    assert all(share[c] > 0.003 for c in CLASSES), share[list(CLASSES)]


def test_poles_cut_instances_in_two(large_scenes):
    def cut(scene, instance):
        mask = scene.instance_ids == instance
        pieces, count = ndimage.label(mask)
        if count < 2 or mask.sum() < 100:
            return False
        # Filling in the poles alone joins pieces that nothing else separates.
        joined, _ = ndimage.label(mask | (scene.label_ids == POLE))
        large = [i for i in range(1, count + 1) if (pieces == i).sum() >= 30]
        return len(large) >= 2 and len({joined[pieces == i][0] for i in large}) == 1

    cuts = sum(any(cut(s, i) for i in np.unique(s.instance_ids) if i >= 1000) for s in large_scenes)
    assert cuts >= 3


# Geometry


def test_disparity_of_the_ground_is_that_of_a_plane_below_the_camera(tree):
    for path in tree.glob("disparity/*/*/*_disparity.png"):
        stem = str(path.relative_to(tree / "disparity")).removesuffix("_disparity.png")
        camera = json.loads((tree / "camera" / f"{stem}_camera.json").read_text())
        with Image.open(tree / "gtFine" / f"{stem}_gtFine_labelIds.png") as image:
            ground = np.isin(np.asarray(image), GROUND)
        with Image.open(path) as image:
            raw = np.asarray(image).astype(float)
        outer, inner = camera["extrinsic"], camera["intrinsic"]
        below = (np.arange(raw.shape[0]) - inner["v0"]) / inner["fy"]
        drop = (
            np.sin(outer["pitch"]) + np.cos(outer["pitch"]) * below
        )  # metres down per metre ahead
        expected = outer["baseline"] * inner["fx"] * drop / outer["z"]
        expected = np.broadcast_to(expected[:, None], raw.shape)
        use = ground & (raw > 0)
        assert use.sum() > 500
        assert np.abs((raw - 1) / 256 - expected)[use].max() < 1 / 512 + 1e-4


def test_things_stand_on_the_ground_that_is_seen_at_their_feet(large_scenes):
    checked = 0
    for scene in large_scenes:
        camera = scene.camera
        disparity = scene.inverse_depth * camera.baseline * camera.fx
        rows = np.arange(scene.label_ids.shape[0])
        below = (rows - camera.v0) / camera.fy
        drop = np.sin(camera.pitch) + np.cos(camera.pitch) * below
        ground = camera.baseline * camera.fx * drop / camera.height
        for instance in np.unique(scene.instance_ids):
            if instance // 1000 not in ON_FEET:
                continue
            row, column = np.nonzero(scene.instance_ids == instance)
            foot = row.argmax()
            under = row[foot] + 1
            if len(row) < 60 or under == len(rows):
                continue
            # Only feet that are seen: below them is ground, not something in front.
            if scene.label_ids[under, column[foot]] not in GROUND:
                continue
            own = np.median(disparity[row, column])
            height = camera.baseline * camera.fx / camera.height / camera.fy  # px per row
            assert abs(own - ground[row[foot]]) < 1.5 * height + 0.12 * own
            checked += 1
    assert checked > 20


def test_the_true_inverse_depth_is_positive_but_in_the_sky_and_agrees_with_the_disparity(scenes):
    for scene in scenes[:20]:
        assert np.array_equal(scene.inverse_depth == 0, scene.label_ids == SKY)
        expected = scene.inverse_depth * scene.camera.baseline * scene.camera.fx
        valid = scene.disparity > 0
        assert np.abs(_disparity(scene) - expected)[valid].max() < 1 / 512 + 1e-4


def test_disparity_is_invalid_in_the_sky_and_beyond_the_left_border(scenes):
    column = np.arange(SIZE[1])
    beyond = 0
    for scene in scenes:
        valid = scene.disparity > 0
        assert not valid[scene.label_ids == SKY].any()
        disparity = scene.inverse_depth * scene.camera.baseline * scene.camera.fx
        outside = column - disparity < 0
        assert not (valid & outside).any()
        beyond += outside.sum()
        assert 0.5 < valid[scene.label_ids != SKY].mean() < 0.99
    assert beyond > 1000


def _hidden_by_search(disparity):
    """Pixels whose point something nearer covers on the right, by comparing all pairs in a row."""
    clearly, barely = np.zeros(disparity.shape, bool), np.zeros(disparity.shape, bool)
    for row, values in enumerate(disparity):
        place = np.arange(len(values)) - values
        apart = np.abs(place[:, None] - place[None])
        nearer = values[None] - values[:, None]
        clearly[row] = ((apart < 0.45) & (nearer > 1.05)).any(axis=1)
        barely[row] = ((apart < 1.55) & (nearer > 0.95)).any(axis=1)
    return clearly, barely


def test_disparity_is_invalid_where_something_nearer_hides_the_point_from_the_right(large_scenes):
    hidden = 0
    for scene in large_scenes[:8]:
        disparity = scene.inverse_depth * scene.camera.baseline * scene.camera.fx
        clearly, barely = _hidden_by_search(disparity)
        inside = (np.arange(disparity.shape[1]) - disparity > 0) & (scene.label_ids != SKY)
        valid = scene.disparity > 0
        assert not (valid & clearly & inside).any()
        assert (valid | barely)[inside].all()
        hidden += (clearly & inside).sum()
    assert hidden > 1000


def test_a_near_pole_hides_as_many_columns_to_its_left_as_disparities_differ():
    disparity = np.full((1, 40), 2.0, np.float32)
    disparity[0, 20:23] = 9.0
    expected = np.ones(40, bool)
    expected[:2] = False  # beyond the left border
    expected[13:16] = False  # the pole is seen 7 columns further left against the background
    assert np.array_equal(seen_by_both(disparity)[0], expected)


@given(st.lists(st.floats(0, 255, width=32), min_size=1, max_size=20), st.data())
def test_disparity_survives_its_file_format_to_half_a_step(values, data):
    values = np.array(values, np.float32)
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    raw = encode(values, valid)
    decoded, decoded_valid = decode(raw)
    assert raw.dtype == np.uint16
    assert np.array_equal(decoded_valid, valid)
    assert np.abs(decoded - values)[valid].max(initial=0) <= 1 / 512
    assert not decoded[~valid].any()


def test_zero_disparity_is_valid_and_what_16_bits_cannot_hold_is_not():
    raw = encode(np.array([0.0, 255.99, 256.0]), np.array([True, True, True]))
    assert raw.tolist() == [1, 65534, 0]


# Difficulty


def _mean_iou(truth, prediction):
    scores = [
        np.sum((truth == c) & (prediction == c)) / np.sum((truth == c) | (prediction == c))
        for c in np.unique(truth)
    ]
    return float(np.mean(scores))


def test_the_colour_of_a_pixel_does_not_tell_its_class(scenes):
    rng = np.random.default_rng(0)
    image, label = np.stack([s.image for s in scenes]), np.stack([s.label_ids for s in scenes])

    def pixels(part, count):
        colour, truth = image[part].reshape(-1, 3), label[part].ravel()
        pick = rng.choice(len(truth), count, replace=False)
        return colour[pick], truth[pick]

    train, val = pixels(slice(0, 90), 20_000), pixels(slice(90, 120), 20_000)
    forest = RandomForestClassifier(30, min_samples_leaf=10, random_state=0).fit(*train)
    prediction = forest.predict(val[0])
    assert np.mean(prediction == val[1]) < 0.5
    assert _mean_iou(val[1], prediction) < 0.2


def test_the_place_of_a_pixel_does_not_tell_its_class_or_its_depth(scenes):
    label = np.stack([s.label_ids for s in scenes])
    votes = np.stack([(label[:90] == c).sum(0) for c in CLASSES])
    most_frequent = np.array(CLASSES)[votes.argmax(0)]
    assert _mean_iou(label[90:], np.broadcast_to(most_frequent, label[90:].shape)) < 0.25

    inverse_depth = np.stack([s.inverse_depth for s in scenes])
    error = np.abs(inverse_depth[90:] - inverse_depth[:90].mean(0)).mean()
    assert error > 0.25 * inverse_depth[90:].mean()
