"""Metrics against hand computations and scikit-learn."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score

from examples.cityscapes.data import CityscapesDataset
from examples.cityscapes.labels import CLASS_NAMES
from examples.cityscapes.metrics import DepthError, InstanceError, SemanticIoU
from examples.cityscapes.prior import position_prior
from tests.examples.tiny_tree import write_tree

maps = st.lists(st.sampled_from([0, 1, 2, 13, 18, 255]), min_size=12, max_size=12)
ROAD, SIDEWALK, BUILDING = 0, 1, 2


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


def test_the_instance_error_adds_both_components_over_instance_pixels_only():
    metric = InstanceError()
    target = torch.zeros(1, 2, 1, 3)
    predicted = torch.tensor([[[[1.0, -3.0, 99.0]], [[2.0, 0.0, 99.0]]]])
    metric.add(predicted, target, torch.tensor([[[True, True, False]]]))
    assert metric.compute() == {"instance_error_px": 3.0}


def test_a_target_of_zero_is_a_target():
    metric = InstanceError()
    metric.add(torch.ones(1, 2, 1, 1), torch.zeros(1, 2, 1, 1), torch.ones(1, 1, 1).bool())
    assert metric.compute() == {"instance_error_px": 2.0}


def test_the_depth_error_leaves_out_what_is_unknown_and_weighs_pixels_not_batches():
    metric = DepthError()
    unknown = torch.tensor([[[[math.nan, 1.0, 1.0]]]])
    metric.add(torch.tensor([[[[5.0, 3.0, 1.0]]]]), unknown, torch.tensor([[[False, True, True]]]))
    metric.add(torch.tensor([[[[7.0]]]]), torch.tensor([[[[3.0]]]]), torch.ones(1, 1, 1).bool())
    found = metric.compute()
    assert found["depth_error_px"] == pytest.approx((2 + 0 + 4) / 3)
    assert found["depth_rms_px"] == pytest.approx(math.sqrt((4 + 0 + 16) / 3))


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
