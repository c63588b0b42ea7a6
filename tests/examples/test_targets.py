"""Targets on cases worked out by hand."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import Cityscapes

from examples.cityscapes.data import targets
from examples.cityscapes.labels import NUM_CLASSES
from tests.examples.tiny_tree import offsets

EGO, ROAD, SKY, PERSON, CAR, BICYCLE = 1, 7, 23, 24, 26, 33


def test_label_ids_are_the_leading_digits_of_instance_ids():
    ids = torch.tensor([[0, 7, 26, 26000, 26013, 33001, 24999]])
    assert targets.label_ids_from_instance_ids(ids).tolist() == [[0, 7, 26, 26, 26, 33, 24]]


def test_thirty_four_label_ids_become_nineteen_train_ids_and_the_rest_is_ignored():
    mapped = targets.train_ids(torch.arange(34))
    expected = {c.id: c.train_id for c in Cityscapes.classes if c.id >= 0}
    assert mapped.tolist() == [t if 0 <= t < 19 else 255 for t in map(expected.get, range(34))]
    assert set(mapped.tolist()) == {*range(NUM_CLASSES), 255}


def test_the_licence_plate_is_ignored_as_minus_one_and_as_it_is_stored():
    assert targets.train_ids(torch.tensor([-1, 255])).tolist() == [255, 255]


def test_groups_stuff_and_caravans_are_no_instances():
    group, stuff, caravan, car, bicycle = 26, 7, 29001, 26001, 33004
    ids = torch.tensor([group, stuff, caravan, car, bicycle])
    assert targets.evaluated_instances(ids).tolist() == [0, 0, 0, car, bicycle]


def test_exactly_the_eight_evaluated_thing_classes_have_instances():
    ids = torch.tensor([1000 * c.id + 1 for c in Cityscapes.classes if c.id >= 0])
    found = {i // 1000 for i in targets.evaluated_instances(ids).tolist()} - {0}
    assert found == {24, 25, 26, 27, 28, 31, 32, 33}


def test_vectors_lead_from_each_pixel_to_the_mean_of_the_mask():
    ids = torch.zeros(3, 5, dtype=torch.int32)
    ids[0, 0] = ids[0, 4] = ids[2, 2] = 26001  # cut into three parts
    table = targets.find_centroids(ids)
    assert table.ids.tolist() == [26001]
    torch.testing.assert_close(table.xy, torch.tensor([[2.0, 2 / 3]]))
    vectors = offsets(ids, table)
    torch.testing.assert_close(vectors[:, 0, 0], torch.tensor([2.0, 2 / 3]))
    torch.testing.assert_close(vectors[:, 0, 4], torch.tensor([-2.0, 2 / 3]))
    torch.testing.assert_close(vectors[:, 2, 2], torch.tensor([0.0, 2 / 3 - 2]))
    assert vectors[:, 1].abs().sum() == 0


def test_a_crop_keeps_the_centre_of_the_whole_instance():
    ids = torch.full((4, 8), 26001)
    table = targets.find_centroids(ids)
    assert offsets(ids[:, :2], table)[0, 0].tolist() == [3.5, 2.5]


@given(st.lists(st.sampled_from([0, 26000, 26001, 24007, 33999]), min_size=12, max_size=12))
def test_vectors_of_an_instance_sum_to_zero_and_all_lead_to_one_point(values):
    ids = torch.tensor(values).view(3, 4)
    vectors = offsets(ids, targets.find_centroids(ids))
    columns, rows = torch.meshgrid(torch.arange(4), torch.arange(3), indexing="xy")
    votes = vectors + torch.stack([columns, rows])
    for instance in set(values) - {0}:
        member = ids == instance
        torch.testing.assert_close(vectors[:, member].sum(1), torch.zeros(2), atol=1e-5, rtol=0)
        assert votes[:, member].std(dim=1, unbiased=False).max() < 1e-5
    assert (vectors[:, ids == 0] == 0).all()


def test_an_image_without_instances_has_an_empty_table_and_no_vectors():
    ids = torch.zeros(2, 3, dtype=torch.int32)
    table = targets.find_centroids(ids)
    assert table.ids.shape == (0,)
    assert table.xy.shape == (0, 2)
    assert offsets(ids, table).abs().sum() == 0


@pytest.mark.parametrize(
    ("raw", "label", "expected"),
    [
        (0, ROAD, None),  # invalid
        (1, ROAD, 0.0),  # valid, infinitely far
        (1 + 256 * 80, ROAD, 10.0),  # 80 px of the original, an eighth of it here
        (257, CAR, 0.125),
        (0, SKY, 0.0),  # the file says nothing: infinitely far
        (1 + 256 * 8, SKY, 1.0),  # the file has the word where it speaks
        (1 + 256 * 80, EGO, None),
        (0, EGO, None),
    ],
)
def test_raw_disparity_becomes_pixels_of_the_network_input(raw, label, expected):
    settled = targets.settle_disparity(torch.tensor([raw]), torch.tensor([label]))
    found = targets.decode_disparity(settled, factor=8).item()
    assert found == expected if expected is not None else found != found
