"""What a head refuses, and the way out that its error names."""

import math

import pytest
import torch

from tests.test_heads import REGRESSION, every_head, fixed_batch, weighing_heads
from uncertainty_mtl import (
    GaussianHead,
    ScaledSigmoidHead,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
)


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_a_shape_mismatch_names_both_shapes_and_the_way_out(head_cls):
    with pytest.raises(ValueError, match=r"\(2, 1, 4\).*\(2, 4\).*squeeze\(1\)"):
        head_cls()(torch.zeros(2, 1, 4), torch.zeros(2, 4))


@pytest.mark.parametrize("head_cls", REGRESSION)
def test_an_integer_target_is_refused(head_cls):
    with pytest.raises(TypeError, match=r"`target`.*torch.int64.*target\.float\(\)"):
        head_cls()(torch.zeros(3), torch.zeros(3, dtype=torch.long))


@every_head
def test_a_mask_of_integers_is_refused(case):
    batch = fixed_batch(case)
    with pytest.raises(TypeError, match=r"`mask`.*torch.uint8.*mask\.bool\(\)"):
        case.head()(*batch[:2], batch.mask.byte())


@every_head
def test_a_mask_of_another_shape_is_refused(case):
    batch = fixed_batch(case)
    with pytest.raises(ValueError, match=r"`mask`.*\(3, 4, 5\).*Found `mask.shape = \(3, 4\)`"):
        case.head()(*batch[:2], batch.mask[..., 0])


def test_label_errors_say_what_was_found():
    head, logits = ScaledSoftmaxHead(ignore_index=255), torch.zeros(2, 4, 3)
    with pytest.raises(ValueError, match=r"from 0 to 3.*255.*from 0 to 7"):
        head(logits, torch.tensor([[0, 1, 7], [255, 2, 2]]))
    with pytest.raises(TypeError, match=r"integer class labels.*torch.float32.*target\.long\(\)"):
        head(logits, torch.zeros(2, 3))
    with pytest.raises(ValueError, match=r"\(2, 4, 3\).*\(2, 1, 3\).*squeeze\(1\)"):
        head(logits, torch.zeros(2, 1, 3, dtype=torch.long))


def test_exact_softmax_has_no_reduced_loss():
    with pytest.raises(ValueError, match="should be given predictions and targets"):
        ScaledSoftmaxHead(exact=True).weigh(torch.tensor(1.0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_sigma": 0.0}, "`init_sigma` should be a finite number above 0. Found 0.0"),
        ({"init_sigma": math.nan}, "`init_sigma`.*Found nan"),
        ({"sigma_bounds": (-1.0, 1.0)}, r"`sigma_bounds\[0\]`.*above 0. Found -1.0"),
        ({"sigma_bounds": (2.0, 1.0)}, "low < high"),
        ({"init_sigma": 1.0, "sigma_bounds": (2.0, 3.0)}, "`init_sigma` should lie within"),
        ({"sigma_bounds": 3.0}, "a pair"),
        ({"num_channels": 0}, "`num_channels`.*at least 1.*Found 0"),
    ],
)
def test_settings_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GaussianHead(**options)


def test_softmax_settings_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"`class_weight`.*\(C,\).*\(2, 2\)"):
        ScaledSoftmaxHead(class_weight=torch.ones(2, 2))
    for size in (2, 4):
        head = ScaledSoftmaxHead(class_weight=torch.ones(size))
        with pytest.raises(ValueError, match=rf"`class_weight`.*3 on axis 1.*Found .*\({size},\)"):
            head(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match=r"`label_smoothing`.*at most 1. Found 2"):
        ScaledSoftmaxHead(label_smoothing=2)


def test_channels_must_fit_the_head():
    with pytest.raises(ValueError, match=r"3 channels on axis 1.*\(4, 2\)"):
        GaussianHead(num_channels=3)(torch.zeros(4, 2), torch.zeros(4, 2))


@weighing_heads
def test_a_reduced_loss_must_be_a_scalar_tensor(case):
    with pytest.raises(ValueError, match=r"a scalar, shape \(\). Found shape \(2,\)"):
        case.head().weigh(torch.ones(2))
    with pytest.raises(TypeError, match=r"`loss` should be a tensor. Found float. .*None"):
        case.head().weigh(1.0)
    with pytest.raises(TypeError, match=r"`loss`.*Found list.*sum or mean"):
        case.head().weigh([torch.tensor(1.0), torch.tensor(2.0)])


@pytest.mark.parametrize(
    "head",
    [
        ScaledSoftmaxHead(),
        ScaledSoftmaxHead(exact=True),
        ScaledSoftmaxHead(class_weight=[1.0, 2.0]),
        ScaledSigmoidHead(pos_weight=[1.0, 2.0]),
    ],
    ids=lambda head: repr(head),
)
def test_a_loss_on_another_device_than_the_predictions_says_how_to_move_it(head):
    loss_fn = UncertaintyWeightedLoss({"a": head})
    logits = torch.zeros(4, 2, device="meta", requires_grad=True)
    is_softmax = isinstance(head, ScaledSoftmaxHead)
    target = torch.zeros(4, dtype=torch.long) if is_softmax else torch.zeros(4, 2)
    with pytest.raises(ValueError, match=r"Move the sigmas with `loss_fn.to\('meta'\)`"):
        loss_fn({"a": logits}, {"a": target.to("meta")})
