"""What the official files mean, each fact on a frame written by hand."""

import json
import math

import numpy as np
import pytest
import torch

from examples.cityscapes.data.dataset import CityscapesDataset, batches, collate
from examples.cityscapes.data.files import find_frames
from examples.cityscapes.data.order import in_order
from examples.cityscapes.data.sample import read_sample
from examples.cityscapes.training.losses import base_losses
from examples.common.errors import InputError
from tests.examples.tiny_tree import CAR, EGO, ROAD, SKY, write_frame, write_tree

TASKS = ("semantic", "instance", "depth")
SIZE = (8, 16)


def write_camera(root, stem, text, split="train"):
    path = root / "camera" / split / stem.split("_")[0] / f"{stem}_camera.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def camera(baseline, fx):
    return json.dumps({"extrinsic": {"baseline": baseline}, "intrinsic": {"fx": fx, "fy": 2265.3}})


def frame(root, stem="town_000000_000000", *, ids=ROAD, raw=257, **options):
    ids = np.broadcast_to(np.array(ids, dtype=np.uint16), SIZE).copy()
    raw = np.broadcast_to(np.array(raw, dtype=np.uint16), SIZE).copy()
    image = np.zeros((*SIZE, 3), np.uint8)
    write_frame(root, "train", stem, image, ids, raw, **options)


def read(root):
    return [read_sample(f, SIZE) for f in find_frames(root, "train")]


def test_raw_zero_is_unknown_and_raw_one_is_a_known_disparity_of_zero(tmp_path):
    frame(tmp_path, raw=[0, 1] * 8)
    batch = collate(read(tmp_path), TASKS)
    assert batch.masks()["depth"][0, 0].tolist() == [False, True] * 8
    assert batch.targets()["depth"][0, 0, 0, 1::2].tolist() == [0.0] * 8


def test_sky_is_at_zero_where_the_file_says_nothing_and_as_it_says_elsewhere(tmp_path):
    frame(tmp_path, ids=SKY, raw=[0, 1 + 256 * 3] * 8)
    assert read(tmp_path)[0].disparity[0].tolist() == [0.0, 3.0] * 8


def test_the_ego_vehicle_is_left_out_of_depth_whatever_the_file_says(tmp_path):
    frame(tmp_path, ids=EGO, raw=[0, 1, 257, 5000] * 4)
    batch = collate(read(tmp_path), TASKS)
    assert not batch.masks()["depth"].any()
    assert not batch.masks()["semantic"].any()


def test_every_image_has_the_camera_of_its_own_file(tmp_path):
    for stem in ("aa_000000_000000", "bb_000000_000000"):
        frame(tmp_path, stem, raw=1 + 256 * 20)
    write_camera(tmp_path, "aa_000000_000000", camera(0.209313, 2262.52))
    write_camera(tmp_path, "bb_000000_000000", camera(0.222126, 2268.36))
    samples = read(tmp_path)
    found = [(s.disparity / s.disparity_at_1m)[0, 0].item() for s in samples]
    assert found == pytest.approx([20 / 473.5748, 20 / 503.8617], rel=1e-5)
    at_1m = collate(samples, TASKS).disparity_at_1m
    torch.testing.assert_close(at_1m, torch.tensor([473.5748, 503.8617]))


def test_the_camera_is_that_of_the_resized_image(tmp_path):
    frame(tmp_path, raw=1 + 256 * 20)
    write_camera(tmp_path, "town_000000_000000", camera(0.2, 2000.0))
    [sample] = [read_sample(f, (4, 8)) for f in find_frames(tmp_path, "train")]
    assert sample.disparity[0, 0] == 10.0
    assert sample.disparity_at_1m == 200.0  # 20 / 400 per metre, at either size


def test_a_city_without_cameras_trains_and_has_no_metres(tmp_path):
    frame(tmp_path)
    [sample] = read(tmp_path)
    assert math.isnan(sample.disparity_at_1m)
    assert collate([sample], TASKS).masks()["depth"].all()


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"extrinsic": {}}', camera("wide", 1), camera(0, 2262.5), camera(1, math.nan)],
)
def test_a_camera_file_that_says_nothing_useful_is_named(tmp_path, text):
    frame(tmp_path)
    path = write_camera(tmp_path, "town_000000_000000", text)
    with pytest.raises(InputError, match=path.name):
        read(tmp_path)


def test_cities_with_and_without_disparity_share_a_batch(tmp_path):
    frame(tmp_path, "aa_000000_000000", ids=SKY, raw=0)
    frame(tmp_path, "bb_000000_000000", ids=SKY, raw=0, disparity=False)
    batch = collate(read(tmp_path), TASKS)
    assert batch.masks()["depth"].flatten(1).all(1).tolist() == [True, False]
    assert batch.masks()["depth"].flatten(1).any(1).tolist() == [True, False]


def test_an_image_without_any_thing_leaves_the_instance_loss_at_zero(tmp_path):
    frame(tmp_path, ids=ROAD)
    batch = collate(read(tmp_path), TASKS)
    assert set(batch.targets()["semantic"].flatten().tolist()) == {0}
    outputs = {"semantic": torch.zeros(1, 19, *SIZE), "instance": torch.ones(1, 2, *SIZE)}
    outputs["depth"] = torch.zeros(1, 1, *SIZE)
    losses = base_losses(outputs, batch.targets(), batch.masks())
    assert losses["instance"].num_valid == 0
    assert losses["instance"].mean() == 0
    assert losses["semantic"].mean().item() == pytest.approx(math.log(19))


def test_groups_and_single_cars_are_told_apart_without_label_ids(tmp_path):
    frame(tmp_path, ids=[CAR] * 8 + [CAR * 1000 + 7] * 8, label_ids=False)
    [sample] = read(tmp_path)
    assert (sample.semantic == 13).all()
    assert sample.instance_ids[0].tolist() == [0] * 8 + [26007] * 8


def test_a_whole_tree_without_label_ids_makes_the_same_batches(tmp_path):
    roots = write_tree(tmp_path / "a"), write_tree(tmp_path / "b", label_ids=False)
    one, other = (CityscapesDataset(root, "train", (16, 32), TASKS) for root in roots)
    for left, right in zip(
        batches(one, in_order(one), TASKS), batches(other, in_order(other), TASKS), strict=True
    ):
        torch.testing.assert_close(left, right, equal_nan=True)
