"""The labels of the two-task protocol, from the official layout and from the arrays of papers."""

import numpy as np
import pytest
import torch
from PIL import Image

from examples.cityscapes.data.augment import Augmentation
from examples.cityscapes.data.dataset import CityscapesDataset, batches, collate
from examples.cityscapes.data.order import Draw, in_order
from examples.cityscapes.data.prepare import prepare
from examples.cityscapes.protocols import PROTOCOLS, THREE_TASK, TWO_TASK
from examples.common.errors import InputError
from examples.rendered_scenes import synthesize
from tests.examples.array_tree import categories, write_array, write_arrays

SIZE, TASKS = (32, 64), ("semantic", "depth")


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    out = tmp_path_factory.mktemp("scenes") / "official"
    synthesize(out, train=5, val=2, size=SIZE, seed=0)
    return out


@pytest.fixture(scope="module")
def arrays(official, tmp_path_factory):
    return write_arrays(official, tmp_path_factory.mktemp("arrays"))


def opened(root, split="train", tasks=TASKS, **options):
    return CityscapesDataset(root, split, SIZE, tasks, **{"protocol": TWO_TASK, **options})


def label_ids(official, stem, split="train"):
    (path,) = (official / "gtFine" / split).glob(f"*/{stem}_gtFine_labelIds.png")
    return np.array(Image.open(path))


def test_the_classes_are_the_official_categories_in_their_official_order():
    names = ("flat", "construction", "object", "nature", "sky", "human", "vehicle")
    assert TWO_TASK.class_names == names
    assert len(TWO_TASK.palette) == 7
    assert set(PROTOCOLS) == {"three-task", "two-task"}


def test_classes_of_the_official_files_become_their_categories(official):
    dataset = opened(official)
    for index, frame in enumerate(dataset.frames):
        expected = categories(label_ids(official, frame.stem))
        found = dataset.read(index).semantic.numpy()
        np.testing.assert_array_equal(found, np.where(expected < 0, 255, expected))


def test_a_depth_of_zero_is_unknown_sky_included(official):
    two, three = opened(official), opened(official, protocol=THREE_TASK)
    num_zero = 0
    for index, frame in enumerate(two.frames):
        sky = label_ids(official, frame.stem) == 23
        found, before = two.read(index).disparity, three.read(index).disparity
        assert sky.any()
        assert found[torch.from_numpy(sky)].isnan().all()
        num_zero += int((before == 0).sum())
        positive = before > 0
        assert torch.equal(found[positive], before[positive])
        assert torch.equal(~found.isnan(), positive)
    assert num_zero > 0


def test_both_layouts_of_the_same_scenes_give_the_same_batches(official, arrays):
    one, other = opened(official), opened(arrays)
    assert len(one) == len(other) == 5
    for a, b in zip(
        batches(one, in_order(one, 2), TASKS),
        batches(other, in_order(other, 2), TASKS),
        strict=True,
    ):
        assert torch.equal(a.image, b.image)
        for kind in ("targets", "masks"):
            of_a, of_b = getattr(a, kind)(), getattr(b, kind)()
            assert of_a.keys() == of_b.keys() == set(TASKS)
            for task in TASKS:
                torch.testing.assert_close(of_a[task], of_b[task], equal_nan=True)


def test_a_prepared_copy_gives_the_same_labels_as_its_source(official, tmp_path):
    prepare(official, tmp_path / "copy", SIZE, workers=1)
    one, other = opened(official), opened(tmp_path / "copy")
    for index in range(len(one)):
        for a, b in zip(one.read(index)[:2], other.read(index)[:2], strict=True):
            assert torch.equal(a, b)
        depths = (dataset.read(index).disparity for dataset in (one, other))
        torch.testing.assert_close(*depths, equal_nan=True)


def test_kept_images_and_crops_have_the_same_labels(arrays):
    augmentation = Augmentation(crop=(16, 32), scale=(1.0, 1.5))
    fresh, kept = (opened(arrays, augmentation=augmentation) for _ in range(2))
    kept.keep(limit_mb=100)
    assert kept.is_kept
    for seed in range(6):
        one, other = (dataset[Draw(seed % 5, seed)] for dataset in (fresh, kept))
        for name in ("image", "semantic", "disparity"):
            a, b = getattr(one, name), getattr(other, name)
            torch.testing.assert_close(a, b, equal_nan=True)
            assert a.shape[-2:] == (16, 32)


def test_images_are_ordered_by_number_and_not_by_name(arrays, tmp_path):
    for number in (10, 9, 0, 2):
        write_array(tmp_path, "train", number, "image", np.zeros((*SIZE, 3)))
        write_array(tmp_path, "train", number, "label_7", np.zeros(SIZE))
    dataset = opened(tmp_path, tasks=("semantic",))
    assert [frame.stem for frame in dataset.frames] == ["0", "2", "9", "10"]


def test_a_task_that_is_not_trained_needs_no_arrays(tmp_path):
    write_array(tmp_path, "train", 0, "image", np.ones((*SIZE, 3)))
    write_array(tmp_path, "train", 0, "depth", np.ones((*SIZE, 1)))
    batch = collate([opened(tmp_path, tasks=("depth",)).read(0)], ("depth",))
    assert batch.masks()["depth"].all()
    assert (batch.image == 255).all()
    with pytest.raises(InputError, match=r"label_7/0\.npy not found"):
        opened(tmp_path)


def test_arrays_have_no_labels_for_three_tasks(arrays):
    with pytest.raises(InputError, match="need --protocol two-task; found --protocol three-task"):
        opened(arrays, protocol=THREE_TASK)


def test_an_absent_split_is_named(arrays):
    with pytest.raises(InputError, match=r"no images found as test/image/N\.npy"):
        opened(arrays, split="test")


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("image", np.full((*SIZE, 3), 200.0), "colours from 0 to 1; found float32 from 200 to 200"),
        ("image", np.zeros((3, *SIZE)), "should hold colours from 0 to 1 of shape"),
        ("image", np.zeros((16, 32, 3)), r"is 16x32 \(height x width\), but --size is 32x64"),
        ("label_7", np.full(SIZE, 7), "whole numbers from 0 to 6, or -1 for no class; found 7"),
        ("label_7", np.full(SIZE, 0.5), "found 0.5"),
        ("depth", np.full((*SIZE, 1), np.nan), "finite inverse depths"),
        ("depth", np.zeros(SIZE), "should hold inverse depths of shape"),
    ],
)
def test_an_array_of_another_kind_is_refused_with_what_was_expected(tmp_path, kind, values, words):
    right = {"image": (*SIZE, 3), "label_7": SIZE, "depth": (*SIZE, 1)}
    for name, shape in right.items():
        write_array(tmp_path, "train", 0, name, np.zeros(shape))
    path = write_array(tmp_path, "train", 0, kind, values)
    with pytest.raises(InputError, match=words) as found:
        opened(tmp_path).read(0)
    assert str(path) in str(found.value)


def test_pickles_and_damaged_files_are_refused(tmp_path):
    for name, shape in {"image": (*SIZE, 3), "depth": (*SIZE, 1)}.items():
        path = write_array(tmp_path, "train", 0, name, np.zeros(shape))
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="not a readable array"):
        opened(tmp_path, tasks=("depth",)).read(0)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match="not a readable array"):
        opened(tmp_path, tasks=("depth",)).read(0)
