"""The dict of losses that a detector of torchvision returns, with and without objects."""

import pytest
import torch
from torchvision.models.detection import maskrcnn_resnet50_fpn

from uncertainty_mtl import UncertaintyWeightedLoss

LIKELIHOODS = {
    "loss_classifier": "softmax",
    "loss_box_reg": "laplace",
    "loss_mask": "softmax",
    "loss_objectness": "softmax",
    "loss_rpn_box_reg": "laplace",
}
# What each weight times its loss comes to at the optimum.
AT_OPTIMUM = {task: 1.0 if name == "laplace" else 0.5 for task, name in LIKELIHOODS.items()}
NEEDS_OBJECTS = ("loss_box_reg", "loss_mask", "loss_rpn_box_reg")


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64
    ).train()


def image_with(num_objects):
    """Return a batch of one image, with as many objects."""
    corner = torch.tensor([8.0, 10.0]) + 6 * torch.arange(num_objects).unsqueeze(1)
    masks = torch.zeros(num_objects, 64, 64, dtype=torch.uint8)
    for i, (x, y) in enumerate(corner.long().tolist()):
        masks[i, y : y + 30, x : x + 34] = 1
    boxes = torch.cat([corner, corner + torch.tensor([34.0, 30.0])], dim=1)
    labels = torch.arange(num_objects) % 2 + 1
    return [torch.rand(3, 64, 64)], [{"boxes": boxes, "labels": labels, "masks": masks}]


def without_zeros(losses):
    """Return a detector's losses with None for those that it has no object for."""
    return {task: loss if loss > 0 else None for task, loss in losses.items()}


def test_the_first_image_with_objects_starts_every_sigma(detector):
    loss_fn = UncertaintyWeightedLoss(LIKELIHOODS)
    losses = detector(*image_with(2))
    assert losses.keys() == LIKELIHOODS.keys()
    result = loss_fn(losses)
    weighed = {task: (loss_fn.weights()[task] * losses[task]).item() for task in losses}
    assert weighed == pytest.approx(AT_OPTIMUM, rel=1e-4)
    result.total.backward()
    assert all(p.grad.isfinite().all() for p in detector.parameters() if p.grad is not None)
    # At its optimum a sigma stays where it is.
    assert all(abs(loss_fn[task].log_var.grad.item()) < 1e-4 for task in losses)


@pytest.mark.parametrize("missing", [without_zeros, dict], ids=["None", "zero"])
def test_an_image_without_objects_sets_no_sigma_of_what_needs_objects(detector, missing):
    loss_fn = UncertaintyWeightedLoss(LIKELIHOODS)
    losses = detector(*image_with(0))
    assert all(losses[task] == 0 for task in NEEDS_OBJECTS)
    result = loss_fn(missing(losses))
    assert result.total.isfinite()
    sigmas = loss_fn.sigmas()
    for task in LIKELIHOODS:
        weighed = (loss_fn.weights()[task] * losses[task]).item()
        if task in NEEDS_OBJECTS:
            assert sigmas[task] == 1
            assert loss_fn[task].num_batches_tracked == 0
        else:
            assert weighed == pytest.approx(AT_OPTIMUM[task], rel=1e-4)
    later = detector(*image_with(1))
    loss_fn(missing(later))
    weighed = {task: (loss_fn.weights()[task] * later[task]).item() for task in NEEDS_OBJECTS}
    assert weighed == pytest.approx({task: AT_OPTIMUM[task] for task in NEEDS_OBJECTS}, rel=1e-4)


def test_a_loss_that_is_none_adds_nothing_and_gives_zero_gradients(detector):
    loss_fn = UncertaintyWeightedLoss(LIKELIHOODS)
    loss_fn(without_zeros(detector(*image_with(2))))
    result = loss_fn(without_zeros(detector(*image_with(0))))
    result.total.backward()
    for task in NEEDS_OBJECTS:
        assert result.tasks[task] == 0
        assert result.errors[task].isnan()
        assert result.counts[task] == 0
        assert loss_fn[task].log_var.grad == 0
    present = [result.tasks[task] for task in LIKELIHOODS if task not in NEEDS_OBJECTS]
    torch.testing.assert_close(result.total, torch.stack(present).sum())


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_empty_images_do_not_change_the_weights_of_what_needs_objects(detector, estimator):
    # The network stays as it is; only the sigmas follow, with images of both kinds in turn.
    loss_fn = UncertaintyWeightedLoss(LIKELIHOODS, estimator=estimator)
    with torch.no_grad():
        recorded = [detector(*image_with(2 * (step % 2))) for step in range(8)]
    scale = torch.ones((), requires_grad=True)  # so that the losses carry a gradient
    groups = [{"params": [scale], "lr": 0.0}, *loss_fn.param_groups()]
    optimizer = torch.optim.Adam(groups)
    for step in range(200):
        losses = {task: loss * scale for task, loss in recorded[step % 8].items()}
        loss_fn(without_zeros(losses)).total.backward()
        optimizer.step()
        optimizer.zero_grad()
    weights = loss_fn.weights()
    for task in LIKELIHOODS:
        mean = torch.stack([losses[task] for losses in recorded if losses[task] > 0]).mean()
        assert weights[task].item() == pytest.approx(AT_OPTIMUM[task] / mean.item(), rel=1 / 3)
