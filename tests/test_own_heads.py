"""Likelihoods that a user adds: with a power form, with their scale inside, and without one."""

import math

import pytest
import torch
from torch.distributions import Poisson, StudentT

from tests.own_heads import PoissonHead, QuarticHead, StudentHead
from uncertainty_mtl import TaskHead, UncertaintyWeightedLoss
from uncertainty_mtl.forms import LIEBEL_KOERNER, BaseLoss

COUNTS = torch.tensor([0.0, 3.0, 1.0, 7.0])


def test_a_likelihood_without_a_scale_has_no_parameter():
    head = PoissonHead()
    assert list(head.parameters()) == []
    assert head.state_dict() == {}
    assert head.sigma.isnan()
    assert head.sigma.shape == ()
    assert head.weight.item() == 1
    head.freeze()
    head.reset_parameters()
    assert repr(head) == "PoissonHead()"


def test_by_itself_it_is_the_mean_of_its_likelihood():
    head, prediction = PoissonHead(), torch.randn(4)
    mask = torch.tensor([True, False, True, True])
    log_prob = Poisson(prediction.exp()).log_prob(COUNTS)
    torch.testing.assert_close(head(prediction, COUNTS), -log_prob.mean())
    torch.testing.assert_close(head(prediction, COUNTS, mask), -log_prob[mask].mean())
    assert head(prediction, COUNTS, torch.zeros(4, dtype=torch.bool)).item() == 0


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_in_a_loss_it_is_added_as_it_is(estimator):
    loss_fn = UncertaintyWeightedLoss(
        {"people": PoissonHead(), "depth": "laplace"}, estimator=estimator
    )
    people, depth = torch.randn(4, requires_grad=True), torch.randn(4, requires_grad=True)
    losses = loss_fn(
        {"people": people, "depth": depth}, {"people": COUNTS, "depth": torch.zeros(4)}
    )
    expected = -Poisson(people.exp()).log_prob(COUNTS).mean()
    # Laplace noise at its optimum, which the first batch sets: 1 + log(b) + log(2)/2.
    b = depth.detach().abs().mean()
    torch.testing.assert_close(losses.tasks["people"], expected)
    torch.testing.assert_close(losses.total, expected + 1 + math.log(b) + math.log(2) / 2)
    torch.testing.assert_close(losses.errors["people"], expected.detach())
    assert losses.counts["people"].item() == 4

    losses.total.backward()
    torch.testing.assert_close(people.grad, (people.exp() - COUNTS).detach() / 4)
    assert loss_fn.sigmas()["people"].isnan()
    assert loss_fn.weights()["people"].item() == 1
    assert not any("heads.people" in key for key in loss_fn.state_dict())


def test_without_labels_it_adds_zero_and_keeps_the_graph_connected():
    loss_fn = UncertaintyWeightedLoss({"people": PoissonHead(), "depth": "laplace"})
    predictions = {task: torch.randn(4, requires_grad=True) for task in loss_fn}
    losses = loss_fn(predictions, {"people": None, "depth": torch.zeros(4)})
    losses.total.backward()
    assert losses.tasks["people"].item() == 0
    assert losses.errors["people"].isnan()
    assert losses.counts["people"].item() == 0
    assert predictions["people"].grad.tolist() == [0, 0, 0, 0]
    assert predictions["depth"].grad.any()

    nothing = loss_fn(predictions, {"people": None, "depth": None})
    nothing.total.backward()
    assert nothing.total.item() == 0


@pytest.mark.parametrize("targets", [COUNTS, None], ids=["labels", "no labels"])
def test_a_loss_of_such_a_head_alone_works(targets):
    loss_fn, prediction = UncertaintyWeightedLoss({"people": PoissonHead()}), torch.zeros(4)
    losses = loss_fn({"people": prediction.requires_grad_()}, {"people": targets})
    losses.total.backward()
    expected = 0.0 if targets is None else -Poisson(torch.ones(4)).log_prob(COUNTS).mean().item()
    assert losses.total.item() == pytest.approx(expected)
    assert prediction.grad is not None
    assert loss_fn.param_groups() == []


def test_it_scales_with_its_priority():
    loss_fn = UncertaintyWeightedLoss({"people": PoissonHead()}, priorities={"people": 3.0})
    prediction = torch.randn(4)
    losses = loss_fn({"people": prediction.requires_grad_()}, {"people": COUNTS})
    expected = -3 * Poisson(prediction.exp()).log_prob(COUNTS).mean()
    torch.testing.assert_close(losses.total, expected)
    assert loss_fn.weights()["people"].item() == 3


def test_it_takes_no_reduced_loss_and_no_other_form():
    with pytest.raises(ValueError, match="should be given predictions and targets"):
        PoissonHead().weigh(torch.tensor(1.0))
    with pytest.raises(ValueError, match="Task 'n': PoissonHead should have `form='nll'`"):
        UncertaintyWeightedLoss({"n": PoissonHead()}, form="symmetric")
    with pytest.raises(ValueError, match="constraint='unit_sum'"):
        UncertaintyWeightedLoss({"n": PoissonHead(), "d": "laplace"}, constraint="unit_sum")


def test_a_scale_inside_of_the_likelihood_starts_at_one_and_is_learned():
    torch.manual_seed(0)
    noise = StudentT(3.0, 0.0, 2.5).sample((20_000,))
    head = StudentHead()
    loss_fn = UncertaintyWeightedLoss({"y": head})
    optimizer = torch.optim.Adam(loss_fn.param_groups(lr=0.1))
    prediction = torch.zeros_like(noise).requires_grad_()
    first = loss_fn({"y": prediction}, {"y": noise})
    assert head.sigma.item() == 1, "it has no closed form to start from"
    constant = StudentT(3.0, 0.0, 1.0).log_prob(torch.tensor(0.0)).item()
    expected = -StudentT(3.0, 0.0, 1.0).log_prob(noise).mean().item() + constant
    assert first.total.item() == pytest.approx(expected, rel=1e-4)
    for _ in range(100):
        optimizer.zero_grad()
        loss_fn({"y": prediction}, {"y": noise}).total.backward()
        optimizer.step()
    assert loss_fn.sigmas()["y"].item() == pytest.approx(2.5, rel=0.05)
    with pytest.raises(ValueError, match=r"StudentHead should learn its scale by gradient"):
        UncertaintyWeightedLoss({"y": StudentHead()}, estimator="closed_form")


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_power_form_starts_from_data_at_its_optimum(estimator):
    # The likelihood exp(-(r/a)^4)/a is highest at a^4 = 4 * mean(r^4).
    residual = torch.tensor([1.0, -2.0, 0.5, 1.5])
    loss_fn = UncertaintyWeightedLoss({"q": QuarticHead()}, estimator=estimator)
    losses = loss_fn({"q": residual.clone().requires_grad_()}, {"q": torch.zeros(4)})
    optimum = (4 * (residual**4).mean().item()) ** 0.25
    assert loss_fn.sigmas()["q"].item() == pytest.approx(optimum, rel=1e-5)
    assert losses.total.item() == pytest.approx(0.25 + math.log(optimum), rel=1e-5)
    assert QuarticHead(init_sigma=2.0).weigh(torch.tensor(16.0)).item() == pytest.approx(
        1 + math.log(2.0)
    )


def test_a_head_takes_a_power_form_only():
    class Revised(QuarticHead):
        def __init__(self):
            TaskHead.__init__(self, form=LIEBEL_KOERNER)

    with pytest.raises(TypeError, match="should be a PowerForm, or None"):
        Revised()


@pytest.mark.parametrize("count", [torch.full((2,), 16.0), 16, 16.0], ids=type)
@pytest.mark.parametrize("has_scale", [False, True])
def test_a_likelihood_of_channels_without_a_form_is_a_mean_over_all_of_them(count, has_scale):
    class Channels(TaskHead):
        def __init__(self):
            super().__init__(form=None, scale_inside=has_scale, num_channels=2)

        def base_loss(self, prediction, target, mask=None):
            return BaseLoss((prediction - target).abs().sum(dim=(0, 2)), count)

        def distribution(self, prediction):
            return StudentT(3.0, prediction)

    prediction, target = torch.randn(2, 4, 2, 4)
    expected = (prediction - target).abs().mean()
    torch.testing.assert_close(Channels()(prediction, target), expected)
    losses = UncertaintyWeightedLoss({"a": Channels()})({"a": prediction}, {"a": target})
    torch.testing.assert_close(losses.total, expected)


def test_two_forwards_before_one_backward_are_possible_whatever_the_likelihood_saves():
    class Softplus(StudentHead):
        def base_loss(self, prediction, target, mask=None):
            scale = torch.nn.functional.softplus(self.bounded_log_var())
            return BaseLoss(((prediction - target) ** 2 * scale).sum(), target.numel())

    head = Softplus(init_sigma=2.0)
    prediction = torch.randn(4, requires_grad=True)
    (head(prediction, COUNTS) + head(prediction, -COUNTS)).backward()
    slope = torch.sigmoid(head.log_var.detach())
    squares = ((prediction - COUNTS) ** 2).mean() + ((prediction + COUNTS) ** 2).mean()
    torch.testing.assert_close(head.log_var.grad, slope * squares.detach())


def test_a_head_without_parameter_and_prediction_is_on_the_device_of_the_others():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "people": PoissonHead()}).to("meta")
    a = torch.zeros(4, device="meta", requires_grad=True)
    losses = loss_fn({"a": a, "people": None}, {"a": a.detach(), "people": None})
    assert losses.total.device.type == "meta"
