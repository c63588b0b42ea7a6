"""Reading, resizing, flipping, batching, and the order of the images."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from examples.cityscapes.data import targets
from examples.cityscapes.data.augment import flip
from examples.cityscapes.data.dataset import CityscapesDataset, batches, collate
from examples.cityscapes.data.files import find_frames
from examples.cityscapes.data.order import Draw, TrainingOrder, in_order
from examples.cityscapes.data.sample import (
    Sample,
    read_sample,
    resize_nearest,
    resize_rgb,
)
from examples.common.errors import InputError
from tests.examples.tiny_tree import CAR, SKY, offsets, write_frame, write_tree

TASKS = ("semantic", "instance", "depth")


@given(old=st.integers(1, 40), new=st.integers(1, 40))
def test_ids_are_resized_as_nearest_exact_does(old, new):
    values = torch.arange(old, dtype=torch.float64).view(1, 1, 1, old)
    expected = F.interpolate(values, (1, new), mode="nearest-exact").flatten()
    # torch computes the position in floating point, and halves may fall to either side
    positions = (torch.arange(new) + 0.5) * old / new
    clear = (positions - positions.round()).abs() > 1e-4
    found = resize_nearest(values.view(1, old), (1, new)).flatten()
    torch.testing.assert_close(found[clear], expected[clear])


def test_resizing_by_eight_takes_pixel_four_not_pixel_zero_of_each_block():
    assert resize_nearest(torch.arange(16).view(1, 16), (1, 2)).tolist() == [[4, 12]]


def test_colours_are_averaged_before_they_are_dropped():
    stripes = np.zeros((16, 16, 3), dtype=np.uint8)
    stripes[:, ::2] = 200  # plain subsampling would see all or nothing of it
    resized = resize_rgb(stripes, (2, 2))
    assert resized.shape == (3, 2, 2)
    assert (resized.float() - 100).abs().max() < 15


def test_a_frame_is_read_with_disparity_in_pixels_of_the_new_size(tmp_path):
    ids = np.full((16, 32), CAR * 1000, dtype=np.uint16)
    ids[:4] = SKY
    raw = np.full((16, 32), 1 + 256 * 6, dtype=np.uint16)
    raw[:4] = 0
    write_frame(tmp_path, "train", "town_000000_000000", np.zeros((16, 32, 3), np.uint8), ids, raw)
    sample = read_sample(find_frames(tmp_path, "train")[0], (8, 16))
    assert sample.image.shape == (3, 8, 16)
    assert sample.semantic.tolist() == [[10] * 16] * 2 + [[13] * 16] * 6
    assert sample.disparity[:2].unique().tolist() == [0.0]
    assert sample.disparity[2:].unique().tolist() == [3.0]
    assert sample.centroids.xy.tolist() == [[7.5, 4.5]]


def test_a_tree_without_label_ids_reads_the_same(tmp_path):
    with_labels = write_tree(tmp_path / "a", train=1)
    without = write_tree(tmp_path / "b", train=1, label_ids=False)
    one, other = (
        read_sample(find_frames(root, "train")[0], (16, 32)) for root in (with_labels, without)
    )
    torch.testing.assert_close(one.semantic, other.semantic)
    torch.testing.assert_close(one.disparity, other.disparity, equal_nan=True)


def test_without_a_disparity_file_nothing_is_labelled_for_depth_not_even_sky(tmp_path):
    root = write_tree(tmp_path, train=1, disparity=False)
    sample = read_sample(find_frames(root, "train")[0], (16, 32))
    assert (sample.semantic == 10).any()
    assert sample.disparity.isnan().all()
    assert not collate([sample], TASKS).masks()["depth"].any()


def test_group_regions_count_for_classes_and_not_for_instances(tmp_path):
    ids = np.full((8, 16), CAR, dtype=np.uint16)  # no instance number: a group
    ids[:, 8:] = CAR * 1000 + 1
    image, raw = np.zeros((8, 16, 3), np.uint8), np.zeros((8, 16), np.uint16)
    write_frame(tmp_path, "train", "town_000000_000000", image, ids, raw)
    batch = collate([read_sample(find_frames(tmp_path, "train")[0], (8, 16))], TASKS)
    assert (batch.targets()["semantic"] == 13).all()
    assert batch.masks()["instance"][0, 0].tolist() == [False] * 8 + [True] * 8


@st.composite
def samples(draw):
    height, width = draw(st.integers(2, 5)), draw(st.integers(2, 6))
    values = st.sampled_from([0, 26000, 26001, 24003])
    ids = torch.tensor(draw(st.lists(values, min_size=height * width, max_size=height * width)))
    ids = ids.view(height, width).int()
    image = torch.arange(3 * height * width, dtype=torch.uint8).view(3, height, width)
    disparity = torch.where(ids > 0, torch.rand(height, width), torch.nan)
    semantic = targets.train_ids(targets.label_ids_from_instance_ids(ids))
    return Sample(image, semantic, ids, targets.find_centroids(ids), disparity)


@given(st.lists(samples(), min_size=1, max_size=3), st.sets(st.sampled_from(TASKS)))
def test_a_packed_batch_holds_every_target_of_every_sample(drawn, tasks):
    height = min(s.instance_ids.shape[0] for s in drawn)
    width = min(s.instance_ids.shape[1] for s in drawn)
    cut = [
        s._replace(
            **{
                name: getattr(s, name)[..., :height, :width]
                for name in ("image", "semantic", "instance_ids", "disparity")
            }
        )
        for s in drawn
    ]
    batch = collate(cut, tasks)
    assert set(batch.targets()) == set(batch.masks()) == tasks
    for index, sample in enumerate(cut):
        assert torch.equal(batch.image[index], sample.image)
        centre_of = dict(zip(sample.centroids.ids.tolist(), sample.centroids.xy, strict=True))
        for y, x in itertools.product(range(height), range(width)):
            instance = sample.instance_ids[y, x].item()
            if "instance" in tasks:
                vector = centre_of[instance] - torch.tensor([x, y]) if instance else torch.zeros(2)
                torch.testing.assert_close(batch.targets()["instance"][index, :, y, x], vector)
                assert batch.masks()["instance"][index, y, x] == (instance > 0)
            if "semantic" in tasks:
                assert batch.targets()["semantic"][index, y, x] == sample.semantic[y, x]
                assert batch.masks()["semantic"][index, y, x] == (sample.semantic[y, x] != 255)
        if "depth" in tasks:
            depth = batch.targets()["depth"][index, 0]
            torch.testing.assert_close(depth, sample.disparity, equal_nan=True)
            assert torch.equal(batch.masks()["depth"][index], ~sample.disparity.isnan())


def test_between_processes_a_batch_is_less_than_half_of_what_it_becomes(tmp_path):
    root = write_tree(tmp_path, train=2)
    read = [read_sample(frame, (16, 32)) for frame in find_frames(root, "train")]
    batch = collate(read, TASKS)
    derived = [batch.image, *batch.targets().values(), *batch.masks().values()]
    assert 2 * sum(t.nbytes for t in batch) < sum(t.nbytes for t in derived)


@given(samples())
def test_after_a_flip_pixel_plus_vector_is_the_mirrored_centre(sample):
    flipped = flip(sample)
    before = offsets(sample.instance_ids, sample.centroids)
    after = offsets(flipped.instance_ids, flipped.centroids)
    torch.testing.assert_close(after[0], -before[0].flip(-1))  # x is negated, y is not
    torch.testing.assert_close(after[1], before[1].flip(-1))
    # The table was moved, not recomputed; the mask of the mirrored image has the same centres.
    torch.testing.assert_close(
        flipped.centroids.xy, targets.find_centroids(flipped.instance_ids).xy
    )


@given(samples())
def test_flipping_twice_is_the_identity(sample):
    twice = flip(flip(sample))
    torch.testing.assert_close(twice, sample, equal_nan=True)


def test_flips_move_image_ids_and_disparity_together(tmp_path):
    dataset = CityscapesDataset(write_tree(tmp_path), "train", (16, 32), TASKS)
    plain, flipped = dataset[Draw(0, None)], dataset[Draw(0, 1)]
    for name in ("image", "semantic", "instance_ids", "disparity"):
        expected = getattr(plain, name).flip(-1)
        torch.testing.assert_close(getattr(flipped, name), expected, equal_nan=True)


@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 30), st.integers(0, 5), st.booleans())
def test_the_order_from_the_middle_is_the_rest_of_the_whole(images, size, middle, seed, flips):
    size = min(size, images)

    def order(start):
        return list(TrainingOrder(images, size, start=start, stop=30, seed=seed, augment=flips))

    assert order(middle) == order(0)[middle:]


def test_an_epoch_shows_every_image_once_and_half_of_them_mirrored():
    order = list(TrainingOrder(400, 8, start=0, stop=100, seed=0, augment=True))
    first, second = order[:50], order[50:]
    for epoch in (first, second):
        assert sorted(draw.index for batch in epoch for draw in batch) == list(range(400))
    assert first != second
    assert 0.4 < np.mean([draw.seed % 2 for batch in order for draw in batch]) < 0.6


def test_only_the_trained_tasks_have_targets(tmp_path):
    dataset = CityscapesDataset(write_tree(tmp_path), "train", (16, 32), ("depth",))
    batch = next(batches(dataset, in_order(dataset), ("depth",)))
    assert set(batch.targets()) == set(batch.masks()) == {"depth"}


def test_images_kept_in_memory_are_the_images_read_from_disk(tmp_path):
    dataset = CityscapesDataset(write_tree(tmp_path), "train", (16, 32), TASKS)
    read = dataset.read(2)
    dataset.keep(limit_mb=0)
    assert not dataset.is_kept
    dataset.keep(limit_mb=10)
    assert dataset.is_kept
    torch.testing.assert_close(dataset.read(2), read, equal_nan=True)


def test_a_file_broken_after_the_header_is_named_even_by_a_worker_process(tmp_path):
    root = write_tree(tmp_path)
    dataset = CityscapesDataset(root, "train", (16, 32), TASKS)
    image = dataset.frames[3].image
    image.write_bytes(image.read_bytes()[:80])
    with pytest.raises(InputError) as caught:
        list(batches(dataset, in_order(dataset, 2), TASKS, num_workers=1))
    assert str(caught.value).startswith(f"{image}: not a readable image")
    assert "Traceback" not in str(caught.value)


def test_labels_of_another_size_than_their_image_are_named(tmp_path):
    root = write_tree(tmp_path)
    frame = find_frames(root, "train")[0]
    Image.fromarray(np.zeros((8, 16), np.uint16)).save(frame.instance_ids)
    with pytest.raises(InputError, match="instanceIds"):
        read_sample(frame, (16, 32))


def test_label_ids_alone_are_enough_without_the_instance_task(tmp_path):
    root = write_tree(tmp_path, train=1)
    for path in Path(root).rglob("*instanceIds.png"):
        path.unlink()
    assert len(CityscapesDataset(root, "train", (16, 32), ("semantic", "depth"))) == 1
    with pytest.raises(InputError, match="has no labels"):
        CityscapesDataset(root, "train", (16, 32), TASKS)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
    ],
)
def test_a_reading_process_that_dies_is_named_however_that_shows(tmp_path, monkeypatch, error):
    """It may die while it reads, or while it hands over a batch."""

    def die(loader):
        raise error

    monkeypatch.setattr("examples.cityscapes.data.dataset._from_workers", die)
    dataset = CityscapesDataset(write_tree(tmp_path, train=2), "train", (16, 32), TASKS)
    with pytest.raises(InputError, match=r"--num-workers: one of the processes .* was killed"):
        list(batches(dataset, in_order(dataset), TASKS, num_workers=1))
