"""Metrics against hand computations and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from sklearn.metrics import jaccard_score

from examples.cityscapes.data.dataset import CityscapesDataset
from examples.cityscapes.evaluation.baselines import position_prior
from examples.cityscapes.evaluation.map_errors import DepthError, InstanceError
from examples.cityscapes.evaluation.semantic_iou import SemanticIoU
from examples.cityscapes.labels import CLASS_NAMES
from tests.examples.tiny_tree import write_tree

maps = st.lists(st.sampled_from([0, 1, 2, 13, 18, 255]), min_size=12, max_size=12)
ROAD, SIDEWALK, BUILDING, CAR, TRUCK = 0, 1, 2, 13, 14


def iou_of(predicted, target):
    metric = SemanticIoU()
    metric.add(torch.tensor([predicted]), torch.tensor([target]))
    return metric.compute()


def test_a_class_in_neither_drops_out_and_one_that_is_never_true_counts_zero():
    found = iou_of([ROAD, ROAD, BUILDING, ROAD], [ROAD, ROAD, ROAD, SIDEWALK])
    # road: 2 hits, 1 missed, 1 too many; sidewalk missed; building never true
    assert found["semantic_iou"] == pytest.approx((2 / 4 + 0 + 0) / 3)
    assert found["semantic_iou_present"] == pytest.approx((2 / 4 + 0) / 2)
    per_class = found["semantic_iou_per_class"]
    assert per_class["road"] == 0.5
    assert per_class["building"] == 0.0
    assert per_class["sky"] is None
    assert tuple(per_class) == CLASS_NAMES


def test_predictions_on_ignored_pixels_never_count():
    assert iou_of([ROAD, BUILDING], [ROAD, 255])["semantic_iou"] == 1.0


def test_without_a_labelled_pixel_there_is_no_figure():
    found = iou_of([ROAD], [255])
    assert found["semantic_iou"] is None
    assert found["semantic_iou_present"] is None


@given(predicted=st.lists(st.integers(0, 18), min_size=12, max_size=12), target=maps)
def test_each_class_agrees_with_scikit_learn(predicted, target):
    labelled = np.array(target) != 255
    truth, guess = np.array(target)[labelled], np.array(predicted)[labelled]
    found = iou_of(predicted, target)["semantic_iou_per_class"]
    for train_id, name in enumerate(CLASS_NAMES):
        if found[name] is None:
            assert train_id not in {*truth.tolist(), *guess.tolist()}
        else:
            expected = jaccard_score(truth == train_id, guess == train_id, zero_division=0.0)
            assert found[name] == pytest.approx(expected)


def test_one_matrix_over_the_split_not_a_mean_over_images():
    metric = SemanticIoU()
    metric.add(torch.tensor([[ROAD] * 9 + [SIDEWALK]]), torch.tensor([[ROAD] * 10]))
    metric.add(torch.tensor([[SIDEWALK]]), torch.tensor([[ROAD]]))
    assert metric.compute()["semantic_iou_per_class"]["road"] == pytest.approx(9 / 11)


def test_classes_of_one_category_may_be_confused_without_loss_to_it():
    found = iou_of([ROAD, ROAD, BUILDING, SIDEWALK], [ROAD, SIDEWALK, BUILDING, BUILDING])
    # flat: 2 of 2 found, 1 too many; construction: 1 of 2 found
    assert found["category_iou_per_category"]["flat"] == pytest.approx(2 / 3)
    assert found["category_iou_per_category"]["construction"] == pytest.approx(1 / 2)
    assert found["category_iou_per_category"]["sky"] is None
    assert found["category_iou"] == pytest.approx((2 / 3 + 1 / 2) / 2)


def with_instances(predicted, target, ids, pixel_area=1.0):
    metric = SemanticIoU(pixel_area)
    metric.add(*(torch.tensor([[values]]) for values in (predicted, target, ids)))
    return metric.compute()


def test_a_small_instance_weighs_as_much_as_a_large_one():
    # The large car (8 pixels) is found, the small one (2) is taken for a truck.
    target = [CAR] * 10 + [ROAD] * 2
    predicted = [CAR] * 8 + [TRUCK] * 2 + [ROAD] * 2
    ids = [26001] * 8 + [26002] * 2 + [0] * 2
    found = with_instances(predicted, target, ids)
    assert found["semantic_iou_per_class"]["car"] == pytest.approx(0.8)
    assert found["semantic_iiou_per_class"]["car"] == pytest.approx(0.5)
    assert found["semantic_iiou_per_class"]["truck"] == 0.0
    assert found["semantic_iiou_per_class"]["road"] is None
    assert found["semantic_iiou"] == pytest.approx(0.25)
    assert found["category_iiou"] == found["category_iiou_per_category"]["vehicle"] == 1.0


def test_a_false_positive_costs_as_many_pixels_as_it_has_in_the_original():
    target, predicted, ids = [CAR, ROAD], [CAR, CAR], [26001, 0]
    area = 12794.0202738185  # of the official table
    for pixel_area in (1.0, 64.0):
        found = with_instances(predicted, target, ids, pixel_area)
        assert found["semantic_iiou_per_class"]["car"] == pytest.approx(area / (area + pixel_area))


@pytest.mark.parametrize("scale", [1, 2, 16])
def test_the_iiou_of_a_scene_is_that_of_2048x1024_at_every_size(scale):
    # The official formula for a car of 160x160 pixels, all found, and 160x1280 beside it.
    car, too_many = 12794.0202738185, 160 * 1280
    target = torch.full((1, 64 * scale, 128 * scale), ROAD)
    target[:, 20 * scale : 30 * scale, 20 * scale : 30 * scale] = CAR
    predicted = target.clone()
    predicted[:, 20 * scale : 30 * scale, 20 * scale : 110 * scale] = CAR
    metric = SemanticIoU()
    metric.add(predicted, target, (target == CAR).int())
    iiou = metric.compute()["semantic_iiou_per_class"]["car"]
    assert iiou == pytest.approx(car / (car + too_many))


def test_a_group_has_no_instance_to_weigh():
    found = with_instances([CAR, CAR], [CAR, CAR], [26001, 0])
    assert found["semantic_iiou_per_class"]["car"] == 1.0
    assert iou_of([CAR], [CAR])["semantic_iiou"] is None


def test_equal_ids_in_two_images_are_two_instances():
    metric = SemanticIoU()
    target = torch.full((2, 1, 4), CAR)
    predicted = target.clone()
    predicted[1, 0, 1:] = TRUCK
    ids = torch.tensor([[[26001] * 4], [[26001, 0, 0, 0]]])
    target[1, 0, 1:] = TRUCK
    metric.add(predicted, target, ids)
    assert metric.compute()["semantic_iiou_per_class"]["car"] == 1.0


def test_the_instance_error_adds_both_components_over_instance_pixels_only():
    metric = InstanceError()
    target = torch.zeros(1, 2, 1, 3)
    predicted = torch.tensor([[[[1.0, -3.0, 99.0]], [[2.0, 0.0, 99.0]]]])
    metric.add(predicted, target, torch.tensor([[[True, True, False]]]))
    found = metric.compute()
    assert found["instance_error_px"] == 3.0
    assert found["instance_error_x_px"] == 2.0
    assert found["instance_error_y_px"] == 1.0
    assert found["instance_euclidean_px"] == pytest.approx((math.sqrt(5) + 3) / 2)
    assert found["instance_rms_px"] == pytest.approx(math.sqrt((5 + 9) / 2))


@given(errors=st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=1, max_size=12))
def test_the_instance_errors_agree_with_scipy_and_come_in_their_order(errors):
    metric = InstanceError()
    error = torch.tensor(errors, dtype=torch.float64).T[None, :, None, :]
    # In two parts: pixels are averaged, not batches.
    for part in (error[..., :1], error[..., 1:]):
        mask = torch.ones(1, 1, part.shape[-1], dtype=torch.bool)
        metric.add(part, torch.zeros_like(part), mask)
    found = metric.compute()
    zeros = np.zeros((1, 2))
    length = cdist(np.array(errors), zeros)
    assert found["instance_error_px"] == pytest.approx(cdist(errors, zeros, "cityblock").mean())
    assert found["instance_euclidean_px"] == pytest.approx(length.mean())
    assert found["instance_rms_px"] == pytest.approx(np.linalg.norm(errors) / len(errors) ** 0.5)
    slack = 1 + 1e-9
    assert found["instance_euclidean_px"] <= found["instance_error_px"] * slack
    assert found["instance_euclidean_px"] <= found["instance_rms_px"] * slack


def test_a_target_of_zero_is_a_target():
    metric = InstanceError()
    metric.add(torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).bool())
    assert metric.compute()["instance_error_px"] == 2.0


def test_the_depth_error_leaves_out_what_is_unknown_and_weighs_pixels_not_batches():
    metric = DepthError()
    unknown = torch.tensor([[[[math.nan, 1.0, 1.0]]]])
    metric.add(torch.tensor([[[[5.0, 3.0, 1.0]]]]), unknown, torch.tensor([[[False, True, True]]]))
    metric.add(torch.tensor([[[[7.0]]]]), torch.tensor([[[[3.0]]]]), torch.ones(1, 1, 1).bool())
    found = metric.compute()
    assert found["depth_error_px"] == pytest.approx((2 + 0 + 4) / 3)
    assert found["depth_rms_px"] == pytest.approx(math.sqrt((4 + 0 + 16) / 3))


def test_the_depth_error_in_1_per_metre_is_that_of_images_with_a_camera():
    metric = DepthError()
    # 100 px at one metre: 5 px is 0.05 per metre, 3 px is 0.03.
    predicted, target = torch.tensor([5.0, 9.0]), torch.tensor([3.0, 3.0])
    metric.add(
        predicted.view(2, 1, 1, 1),
        target.view(2, 1, 1, 1),
        torch.ones(2, 1, 1).bool(),
        torch.tensor([100.0, math.nan]),
    )
    found = metric.compute()
    assert found["depth_error_per_metre"] == pytest.approx(0.02)
    assert found["depth_error_px"] == pytest.approx(4.0)
    no_camera = DepthError()
    no_camera.add(torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1).bool())
    assert no_camera.compute()["depth_error_per_metre"] is None


@pytest.mark.parametrize("metric", [InstanceError(), DepthError()])
def test_without_labels_there_is_no_error(metric):
    assert set(metric.compute().values()) == {None}


def test_the_position_prior_is_the_mode_and_the_mean_of_each_pixel(tmp_path):
    dataset = CityscapesDataset(
        write_tree(tmp_path, train=5), "train", (16, 32), ("semantic", "instance", "depth")
    )
    samples = [dataset.read(index) for index in range(len(dataset))]
    classes = np.stack([sample.semantic.numpy() for sample in samples])
    modes = np.apply_along_axis(lambda pixel: np.bincount(pixel).argmax(), 0, classes)
    means = np.nanmean([sample.disparity.numpy() for sample in samples], axis=0)
    prior = position_prior(dataset)
    np.testing.assert_array_equal(prior.semantic, modes)
    np.testing.assert_allclose(prior.disparity, means, rtol=1e-6)
