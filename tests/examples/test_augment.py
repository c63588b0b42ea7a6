"""Flips, scales and crops: image, labels, disparity and centres move together."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data import targets
from examples.cityscapes.data.augment import Augmentation, Box, crop, flip, rescale
from examples.cityscapes.data.sample import Sample
from examples.common.errors import InputError
from tests.examples.tiny_tree import offsets

CARS, PERSON = (26000, 26001), 24003


def sample_of(ids, image=None):
    ids = torch.as_tensor(ids).int()
    height, width = ids.shape
    if image is None:
        image = torch.arange(3 * height * width).view(3, height, width).to(torch.uint8)
    disparity = torch.where(ids == PERSON, torch.nan, 1.0 + torch.arange(width) / width)
    semantic = targets.train_ids(targets.label_ids_from_instance_ids(ids))
    table = targets.find_centroids(ids)
    return Sample(image, semantic, ids, table, disparity, disparity_at_1m=60.0)


@st.composite
def samples(draw):
    height, width = draw(st.integers(4, 9)), draw(st.integers(4, 9))
    values = st.sampled_from([0, *CARS, PERSON])
    ids = draw(st.lists(values, min_size=height * width, max_size=height * width))
    return sample_of(np.array(ids).reshape(height, width))


@st.composite
def moved_samples(draw):
    """A sample, what a random composition makes of it, and the map of coordinates as a matrix."""
    before = after = draw(samples())
    total = np.eye(3)
    for kind in draw(st.lists(st.sampled_from(["flip", "crop", "scale"]), max_size=5)):
        height, width = after.semantic.shape
        if kind == "flip":
            after, step = flip(after), [[-1, 0, width - 1], [0, 1, 0], [0, 0, 1]]
        elif kind == "crop":
            top, left = draw(st.integers(0, height - 2)), draw(st.integers(0, width - 2))
            box = Box(
                top, left, draw(st.integers(2, height - top)), draw(st.integers(2, width - left))
            )
            after, step = crop(after, box), [[1, 0, -left], [0, 1, -top], [0, 0, 1]]
        else:
            size = draw(st.integers(2, 18)), draw(st.integers(2, 18))
            kx, ky = size[1] / width, size[0] / height
            after = rescale(after, size)
            # the left edge of the image, at -0.5, stays where it is
            step = [[kx, 0, (kx - 1) / 2], [0, ky, (ky - 1) / 2], [0, 0, 1]]
        total = np.array(step) @ total
    return before, after, total


@given(moved_samples())
def test_after_any_composition_pixel_plus_vector_is_the_moved_centre(moved):
    before, after, matrix = moved
    ids = after.instance_ids.numpy()
    votes = offsets(after.instance_ids, after.centroids).numpy()
    votes = votes + np.mgrid[: ids.shape[0], : ids.shape[1]][::-1]
    for instance in set(ids.flatten()) - {0}:
        rows, columns = np.nonzero(before.instance_ids.numpy() == instance)
        expected = (matrix @ [columns.mean(), rows.mean(), 1])[:2]
        for vote in votes[:, ids == instance].T:
            np.testing.assert_allclose(vote, expected, atol=1e-3)


@given(moved_samples())
def test_after_any_composition_flipping_twice_is_the_identity(moved):
    _, after, _ = moved
    torch.testing.assert_close(flip(flip(after)), after, equal_nan=True)


@given(moved_samples())
def test_no_composition_changes_what_is_at_which_inverse_depth_per_metre(moved):
    before, after, _ = moved
    values = after.disparity / after.disparity_at_1m
    known = before.disparity / before.disparity_at_1m
    for instance in after.instance_ids.unique():
        found, there = (
            v[s.instance_ids == instance].nan_to_num(-1.0)
            for v, s in ((values, after), (known, before))
        )
        assert (found[:, None] - there).abs().min(dim=1).values.max() < 1e-6


@given(moved_samples())
def test_ids_and_classes_never_part(moved):
    _, after, _ = moved
    expected = targets.train_ids(targets.label_ids_from_instance_ids(after.instance_ids))
    assert torch.equal(after.semantic, expected)
    assert torch.equal(after.disparity.isnan(), after.instance_ids == PERSON)


def test_a_bright_car_is_where_its_centre_says():
    ids = np.zeros((40, 60), dtype=int)
    ids[17:24, 26:35] = CARS[0]
    image = torch.from_numpy(np.repeat((ids > 0)[None] * np.uint8(200), 3, axis=0))
    augmentation = Augmentation(flip=True, scale=(0.7, 2.0), crop=(28, 42))
    rows, columns = torch.meshgrid(torch.arange(28), torch.arange(42), indexing="ij")
    num_whole = 0
    for seed in range(40):
        box, mirrored = augmentation.draw(seed, (40, 60))
        shown = augmentation.finish(crop(sample_of(ids, image), box), (40, 60), mirrored)
        light = shown.image[0].double()
        is_cut = light[[0, -1]].any() or light[:, [0, -1]].any() or not light.any()
        if not is_cut:
            num_whole += 1
            seen = torch.stack([(light * columns).sum(), (light * rows).sum()]) / light.sum()
            found = shown.centroids.xy[0].double()
            torch.testing.assert_close(found, seen, atol=0.1, rtol=0)
    assert num_whole >= 10


def test_a_car_cut_by_the_crop_points_out_of_it():
    ids = np.full((4, 8), CARS[0])
    shown = crop(sample_of(ids), Box(0, 0, 4, 2))
    vectors = offsets(shown.instance_ids, shown.centroids)
    assert vectors[0, 0].tolist() == [3.5, 2.5]  # to column 3.5 of an image of 2 columns


def test_scaling_by_two_doubles_vectors_and_disparities():
    ids = np.zeros((4, 8), dtype=int)
    ids[1:3, 2:6] = CARS[0]
    before = sample_of(ids)
    after = rescale(before, (8, 16))
    assert after.centroids.xy.tolist() == [[7.5, 3.5]]  # was (3.5, 1.5)
    torch.testing.assert_close(after.disparity[::2, ::2], 2 * before.disparity)
    assert after.disparity_at_1m == 2 * before.disparity_at_1m
    vectors = offsets(after.instance_ids, after.centroids)
    assert vectors[:, 2, 4].tolist() == [3.5, 1.5]


@given(st.integers(0, 2**31 - 1))
def test_scale_and_crop_follow_from_the_seed_and_stay_inside(seed):
    augmentation, size = Augmentation(True, (0.7, 2.0), (512, 512)), (1024, 2048)
    box, mirrored = augmentation.draw(seed, size)
    assert (box, mirrored) == augmentation.draw(seed, size)
    assert 0.699 < 512 / box.width < 2.002
    assert box.height == box.width
    assert 0 <= box.top <= size[0] - box.height
    assert 0 <= box.left <= size[1] - box.width


@given(st.floats(0.3, 2.0), st.floats(1.0, 1.01), st.integers(0, 2), st.integers(0, 2**31 - 1))
def test_a_crop_that_is_accepted_is_always_inside_the_image(smallest, ratio, less, seed):
    size, scale = (128, 256), (smallest, smallest * ratio)
    crop = tuple(round(side * smallest) - less for side in size)  # as large as is accepted, or near
    config = TrainConfig(data=Path("in"), out=Path("out"), size=size, scale=scale, crop=crop)
    box, _ = Augmentation(config.flip, config.scale, config.crop).draw(seed, size)
    assert 0 <= box.top <= size[0] - box.height
    assert 0 <= box.left <= size[1] - box.width


def test_every_scale_and_every_corner_is_drawn():
    draws = [Augmentation(True, (0.7, 2.0), (512, 512)).draw(s, (1024, 2048)) for s in range(2000)]
    scales = np.array([512 / box.width for box, _ in draws])
    assert scales.min() < 0.72
    assert scales.max() > 1.98
    assert abs(scales.mean() - 1.35) < 0.05
    place = np.array([[b.left / (2048 - b.width), b.top / (1024 - b.height)] for b, _ in draws])
    tenths = np.array([0.1, 0.5, 0.9])
    for axis in (0, 1):
        np.testing.assert_allclose(np.quantile(place[:, axis], tenths), tenths, atol=0.05)
    assert 0.45 < np.mean([mirrored for _, mirrored in draws]) < 0.55


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"crop": (512, 512)}, "--crop"),
        ({"scale": (0.7, 2.0)}, "--crop"),  # the whole image is not in a smaller one
        ({"crop": (96, 96), "scale": (0.7, 2.0)}, "--crop"),
        ({"crop": (4, 64)}, "--crop"),
        ({"scale": (2.0, 0.7)}, "--scale"),
        ({"scale": (0.0, 1.0)}, "--scale"),
        ({"scale": (1.0, math.inf)}, "--scale"),
    ],
)
def test_an_augmentation_that_cannot_be_is_refused_by_its_flag(tmp_path, fields, flag):
    with pytest.raises(InputError, match=f"^{flag}: "):
        TrainConfig(data=tmp_path, out=tmp_path, **fields)


def test_the_papers_two_settings_are_accepted(tmp_path):
    paths = {"data": tmp_path, "out": tmp_path}
    assert TrainConfig(**paths).crop is None
    full = TrainConfig(**paths, size=(1024, 2048), scale=(0.7, 2.0), crop=(512, 512))
    assert full.flip
