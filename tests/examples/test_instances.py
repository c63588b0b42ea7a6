"""Instances from vectors, against the instances that the vectors came from."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from examples.cityscapes.data import targets
from examples.cityscapes.scene.grouping import find_instances, group_pixels
from tests.examples.tiny_tree import offsets

PERSON, RIDER, CAR, BICYCLE, ROAD, POLE = 11, 12, 13, 18, 0, 5


def exact_offsets(ids):
    ids = torch.from_numpy(ids)
    return offsets(ids, targets.find_centroids(ids)).numpy()


def street():
    """Return ids and classes: a car cut in two by a pole, another car, a rider on a bicycle."""
    ids, classes = np.zeros((64, 128), dtype=np.int32), np.full((64, 128), ROAD)
    for value, train_id, box in (
        (26001, CAR, np.s_[20:40, 10:50]),
        (26002, CAR, np.s_[22:34, 60:80]),
        (33001, BICYCLE, np.s_[40:56, 96:120]),
        (25001, RIDER, np.s_[24:48, 102:112]),
    ):
        ids[box], classes[box] = value, train_id
    ids[:, 28:33], classes[:, 28:33] = 0, POLE
    return ids, classes


def test_exact_vectors_give_back_the_instances_and_a_cut_one_stays_one():
    ids, classes = street()
    found = find_instances(exact_offsets(ids), classes)
    assert adjusted_rand_score(ids.ravel(), found.ravel()) == 1.0
    assert found[30, 12] == found[30, 48] != 0


def test_vectors_with_the_error_of_a_trained_network_still_do():
    ids, classes = street()
    noise = np.random.default_rng(0).laplace(0, 0.8, (2, *ids.shape))
    found = find_instances(exact_offsets(ids) + noise, classes)
    mask = ids > 0
    assert adjusted_rand_score(ids[mask], found[mask]) > 0.95


def test_every_thing_pixel_joins_an_instance_and_no_other_pixel_does():
    ids, classes = street()
    noise = np.random.default_rng(0).normal(0, 5, (2, *ids.shape))
    found = find_instances(exact_offsets(ids) + noise, classes)
    np.testing.assert_array_equal(found > 0, ids > 0)


def test_a_rider_is_not_the_bicycle_even_where_both_vote_for_one_point():
    classes = np.full((32, 32), ROAD)
    classes[8:16, 8:24], classes[16:24, 8:24] = RIDER, BICYCLE
    rows, columns = np.mgrid[:32, :32]
    found = find_instances(np.stack([16 - columns, 16 - rows]).astype(float), classes)
    assert found.max() == 2
    assert len(np.unique(found[classes == RIDER])) == len(np.unique(found[classes == BICYCLE])) == 1


def test_a_car_partly_taken_for_a_truck_is_one_instance():
    ids, classes = street()
    classes[20:40, 10:20] = 14
    found = find_instances(exact_offsets(ids), classes)
    assert adjusted_rand_score(ids.ravel(), found.ravel()) == 1.0


def test_more_pixels_than_votes_are_all_grouped():
    ids = np.zeros((256, 512), dtype=np.int32)
    ids[40:140, 20:200], ids[100:200, 260:400], ids[30:80, 420:500] = 26001, 26002, 26003
    noise = np.random.default_rng(0).laplace(0, 2.5, (2, *ids.shape))
    mask = ids > 0
    groups = group_pixels(exact_offsets(ids) + noise, mask)
    assert groups.shape == (mask.sum(),)
    assert adjusted_rand_score(ids[mask], groups) > 0.95


@pytest.mark.parametrize("num_pixels", [0, 1, 2, 5])
def test_a_handful_of_pixels_is_one_instance_at_most(num_pixels):
    classes = np.full((16, 32), ROAD)
    classes[4, 4 : 4 + num_pixels] = CAR
    found = find_instances(np.zeros((2, 16, 32)), classes)
    assert found.max() == min(num_pixels, 1)


def test_the_same_prediction_gives_the_same_instances():
    ids, classes = street()
    offsets = exact_offsets(ids) + np.random.default_rng(0).normal(0, 2, (2, *ids.shape))
    np.testing.assert_array_equal(
        find_instances(offsets, classes), find_instances(offsets, classes)
    )
