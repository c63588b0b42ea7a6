"""Scales in closed form, from the first batch, shared, frozen and warming up."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Distribution

from tests.strategies import losses, seeds
from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticLaplaceHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    TaskHead,
    UncertaintyWeightedLoss,
)
from uncertainty_mtl.forms import BaseLoss, PowerForm

KINDS = ["gaussian", "laplace", "softmax"]
SHARE = {"gaussian": 0.5, "laplace": 1.0, "softmax": 0.5}
"""Weight times base loss at the optimum."""

every_kind = pytest.mark.parametrize("kind", KINDS)


def leaf(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


class QuarticHead(TaskHead):
    """A head as a user writes it: p(r) ~ exp(-(r / a)^4) / a, with a = sigma."""

    def __init__(self, *, init_sigma: float = 1.0) -> None:
        super().__init__(form=PowerForm(1.0, power=2.0), init_sigma=init_sigma)

    def base_loss(self, prediction: Tensor, target: Tensor, mask: Tensor | None = None) -> BaseLoss:
        """Return the fourth power of the residual."""
        error = (prediction - target) ** 4
        mask = torch.ones_like(error, dtype=torch.bool) if mask is None else mask
        return BaseLoss(torch.where(mask, error, 0.0).sum(), mask.sum().float())

    def distribution(self, prediction: Tensor) -> Distribution:
        """Refuse."""
        raise TypeError("torch.distributions has no such density")


@every_kind
@given(loss=losses, init=st.floats(1e-3, 1e3))
def test_closed_form_is_at_the_optimum_after_one_batch(kind, loss, init):
    head = {"gaussian": GaussianHead, "laplace": LaplaceHead, "softmax": ScaledSoftmaxHead}[kind]
    loss_fn = UncertaintyWeightedLoss(
        {"a": head(init_sigma=init)}, estimator="closed_form", momentum=1.0
    )
    loss_fn({"a": leaf(loss)})
    assert loss_fn.weights()["a"].item() * loss == pytest.approx(SHARE[kind], rel=1e-4)


@given(values=st.lists(losses, min_size=1, max_size=6), momentum=st.floats(0.05, 1))
def test_closed_form_follows_the_running_mean_of_batch_norm(values, momentum):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, estimator="closed_form", momentum=momentum)
    norm = nn.BatchNorm1d(1, momentum=momentum, affine=False)
    norm.running_mean.fill_(values[0])  # The first batch sets the mean.
    for i, value in enumerate(values):
        loss_fn({"a": leaf(value)})
        if i:
            norm(torch.full((2, 1), value))
    mean_square = loss_fn.sigmas()["a"].item() ** 2
    assert mean_square == pytest.approx(norm.running_mean.item(), rel=1e-4)


@every_kind
def test_closed_form_total_is_the_nll_and_the_network_sees_the_weighted_loss(kind):
    loss_fn = UncertaintyWeightedLoss({"a": kind}, estimator="closed_form")
    loss = leaf(2.3)
    total, _ = loss_fn({"a": loss})
    total.backward()
    assert loss.grad.item() == pytest.approx(loss_fn.weights()["a"].item())
    learned = UncertaintyWeightedLoss({"a": kind})
    learned.load_state_dict({"heads.a.log_var": loss_fn["a"].log_var})
    torch.testing.assert_close(total, learned({"a": loss}).total)


def test_closed_form_needs_no_optimizer():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, estimator="closed_form")
    assert list(loss_fn.parameters()) == loss_fn.param_groups() == []
    loss_fn.check_optimizer(torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1))


def test_evaluation_and_empty_batches_leave_the_running_mean_alone():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, estimator="closed_form")
    loss_fn({"a": None})
    assert loss_fn.sigmas()["a"].item() == 1
    loss_fn({"a": leaf(4.0)})
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2), "an empty batch is not the first"
    loss_fn({"a": None})
    loss_fn.eval()({"a": leaf(100.0)})
    assert loss_fn.sigmas()["a"].item() == pytest.approx(2)


def test_either_estimator_loads_the_checkpoint_of_the_other():
    closed = UncertaintyWeightedLoss({"a": "gaussian"}, estimator="closed_form", momentum=0.5)
    closed({"a": leaf(4.0)})
    learned = UncertaintyWeightedLoss({"a": "gaussian"})
    learned.load_state_dict(closed.state_dict())
    assert learned.sigmas()["a"].item() == pytest.approx(2)

    again = UncertaintyWeightedLoss({"a": "gaussian"}, estimator="closed_form", momentum=0.5)
    again.load_state_dict(learned.state_dict())
    again({"a": leaf(6.0)})
    assert again.sigmas()["a"].item() ** 2 == pytest.approx(5), "the loaded mean counts"


def test_closed_form_resumes_bit_identically():
    def run(loss_fn, values):
        for value in values:
            loss_fn({"a": leaf(value), "b": leaf(2 * value)})
        return loss_fn

    def build():
        return UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, estimator="closed_form")

    values = torch.rand(20).tolist()
    resumed = build()
    resumed.load_state_dict(run(build(), values[:10]).state_dict())
    whole = run(build(), values)
    for task, sigma in run(resumed, values[10:]).sigmas().items():
        assert torch.equal(sigma, whole.sigmas()[task])


def test_closed_form_has_a_scale_per_channel_too():
    loss_fn = UncertaintyWeightedLoss(
        {"a": GaussianHead(num_channels=2)}, estimator="closed_form", momentum=1.0
    )
    target = torch.randn(50, 2) * torch.tensor([1.0, 7.0])
    loss_fn({"a": torch.zeros(50, 2)}, {"a": target})
    torch.testing.assert_close(loss_fn.sigmas()["a"], target.square().mean(0).sqrt())


def test_closed_form_compiles_in_one_graph():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, estimator="closed_form")
    compiled = torch.compile(loss_fn, backend="aot_eager", fullgraph=True)
    for value in (3.0, 5.0):
        compiled({"a": torch.tensor(value), "b": torch.tensor(value)})
    assert loss_fn.sigmas()["a"].item() ** 2 == pytest.approx(0.9 * 3 + 0.1 * 5)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
@given(seed=seeds, k=st.integers(1, 50))
def test_initialisation_puts_every_weight_at_its_optimum(estimator, seed, k):
    generator = torch.Generator().manual_seed(seed)
    values = 10 ** torch.empty(k).uniform_(-4, 4, generator=generator)
    tasks = {f"{i}": KINDS[i % 3] for i in range(k)}
    loss_fn = UncertaintyWeightedLoss(tasks, estimator=estimator)
    loss_fn.initialize_from(values)
    for (task, kind), value in zip(tasks.items(), values.tolist(), strict=True):
        assert loss_fn.weights()[task].item() * value == pytest.approx(SHARE[kind], rel=1e-4)


def test_initialisation_takes_predictions_masks_groups_and_absent_tasks():
    group = UncertaintyWeightedLoss({"x": "gaussian", "y": "laplace"})
    loss_fn = UncertaintyWeightedLoss({"flow": group, "depth": LaplaceHead(init_sigma=3.0)})
    zero, target = torch.zeros(4), torch.tensor([2.0, 2.0, math.nan, math.nan])
    mask = target.isfinite()
    loss_fn.initialize_from(
        {"flow": {"x": zero, "y": zero}, "depth": zero},
        {"flow": {"x": target, "y": target}, "depth": None},
        {"flow": {"x": mask, "y": mask}},
    )
    sigmas = {task: sigma.item() for task, sigma in loss_fn.sigmas().items()}
    assert sigmas == pytest.approx({"flow.x": 2, "flow.y": 2 * math.sqrt(2), "depth": 3})


def test_initialisation_finds_the_temperature_of_an_exact_softmax():
    logits = 5 * torch.randn(20_000, 5)
    labels = torch.distributions.Categorical(logits=logits / 4).sample()
    head = ScaledSoftmaxHead(exact=True)
    loss_fn = UncertaintyWeightedLoss({"a": head})
    loss_fn.initialize_from({"a": logits}, {"a": labels})
    assert head.sigma.item() ** 2 == pytest.approx(4, rel=0.05)
    head(logits, labels).backward()
    assert abs(head.log_var.grad.item()) < 1e-4


def test_initialisation_removes_the_inertia():
    # Adam at 1e-2 needs hundreds of steps from s = 0 to a loss of 1e-3, and none after this.
    def steps_to_within_5_percent(initialize: bool) -> int:
        loss_fn = UncertaintyWeightedLoss({"a": "gaussian"})
        optimizer = torch.optim.Adam(loss_fn.param_groups(lr=1e-2))
        loss = leaf(1e-3)
        if initialize:
            loss_fn.initialize_from({"a": loss})
        for step in range(2000):
            if loss_fn.weights()["a"].item() * 1e-3 == pytest.approx(0.5, rel=0.05):
                return step
            optimizer.zero_grad()
            loss_fn({"a": loss}).total.backward()
            optimizer.step()
        return 2000

    assert steps_to_within_5_percent(initialize=False) > 500
    assert steps_to_within_5_percent(initialize=True) == 0


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_head_that_a_user_wrote_works_everywhere(estimator):
    loss_fn = UncertaintyWeightedLoss(
        {"q": QuarticHead(), "a": "laplace"}, estimator=estimator, momentum=1.0
    )
    prediction, target = {"q": torch.zeros(8), "a": leaf(2.0)}, {"q": torch.full((8,), 2.0)}
    # -log p = e^{-2s} r^4 + s/2 with r = 2: e^{2s} = 4 * 16.
    loss_fn.initialize_from(prediction, target)
    assert loss_fn.sigmas()["q"].item() == pytest.approx(64 ** (1 / 4))
    assert loss_fn.weights()["q"].item() * 16 == pytest.approx(1 / 4)
    loss_fn(prediction, target, {"q": torch.zeros(8, dtype=torch.bool)}).total.backward()
    assert loss_fn.sigmas()["q"].item() == pytest.approx(64 ** (1 / 4))


def test_raw_and_reduced_tasks_mix_in_one_call():
    loss_fn = UncertaintyWeightedLoss({"depth": "laplace", "contrast": "gaussian"})
    depth, contrast = torch.zeros(5, requires_grad=True), leaf(3.0)
    losses = loss_fn({"depth": depth, "contrast": contrast}, {"depth": torch.ones(5)})
    torch.testing.assert_close(losses.tasks["depth"].item(), math.sqrt(2))
    torch.testing.assert_close(losses.tasks["contrast"].item(), 1.5)
    losses.total.backward()
    assert contrast.grad.item() == 0.5
    with pytest.raises(ValueError, match=r"`targets`.*missing: \['depth'\]"):
        loss_fn({"depth": depth, "contrast": contrast}, {})
    absent = loss_fn({"depth": depth, "contrast": None}, {"depth": torch.ones(5)})
    assert absent.tasks["contrast"].item() == 0


@given(priority=st.floats(0.1, 10), loss=losses)
def test_a_priority_scales_the_task_and_not_its_sigma(priority, loss):
    plain = UncertaintyWeightedLoss({"a": "laplace", "b": "gaussian"})
    loss_fn = UncertaintyWeightedLoss({"a": "laplace", "b": "gaussian"}, priorities={"a": priority})
    for each in (plain, loss_fn):
        each.initialize_from({"a": torch.tensor(loss), "b": torch.tensor(loss)})
    values = {"a": leaf(loss), "b": leaf(loss)}
    expected, found = plain(values).tasks, loss_fn(values)
    torch.testing.assert_close(found.tasks["a"], priority * expected["a"])
    torch.testing.assert_close(found.tasks["b"], expected["b"])
    torch.testing.assert_close(found.total, sum(found.tasks.values()))
    assert loss_fn.sigmas() == plain.sigmas()
    found.total.backward()
    assert values["a"].grad.item() == pytest.approx(loss_fn.weights()["a"].item(), rel=1e-5)


def test_a_priority_of_a_group_reaches_its_tasks():
    group = UncertaintyWeightedLoss({"x": "gaussian"})
    loss_fn = UncertaintyWeightedLoss({"g": group, "a": "laplace"}, priorities={"g": 3.0})
    assert loss_fn.weights()["g.x"].item() == pytest.approx(1.5)


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_frozen_sigmas_stay_until_they_are_unfrozen(estimator):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"}, estimator=estimator)
    optimizer = torch.optim.SGD([leaf(0.0), *loss_fn.parameters()], lr=0.1, momentum=0.9)

    def step():
        optimizer.zero_grad()
        loss_fn({"a": leaf(4.0), "b": leaf(4.0)}).total.backward()
        optimizer.step()

    loss_fn.freeze("a")
    for _ in range(3):
        step()
    assert loss_fn.sigmas()["a"].item() == 1
    assert loss_fn.sigmas()["b"].item() != 1
    loss_fn.unfreeze()
    step()
    assert loss_fn.sigmas()["a"].item() != 1
    with pytest.raises(ValueError, match="Found 'c'"):
        loss_fn.freeze("c")


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_sigma_stays_put_during_a_warmup(estimator):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, estimator=estimator, warmup_steps=3)
    optimizer = torch.optim.SGD([leaf(0.0), *loss_fn.parameters()], lr=0.1, momentum=0.9)
    sigmas = []
    for step in range(5):
        if step == 2:  # The count is saved, and evaluation does not add to it.
            state = loss_fn.state_dict()
            loss_fn = UncertaintyWeightedLoss(
                {"a": "gaussian"}, estimator=estimator, warmup_steps=3
            )
            loss_fn.load_state_dict(state)
            optimizer = torch.optim.SGD([leaf(0.0), *loss_fn.parameters()], lr=0.1, momentum=0.9)
            loss_fn.eval()({"a": leaf(9.0)})
            loss_fn.train()
        optimizer.zero_grad()
        loss_fn({"a": leaf(9.0)}).total.backward()
        optimizer.step()
        sigmas.append(loss_fn.sigmas()["a"].item())
    assert sigmas[:3] == [1, 1, 1]
    assert sigmas[3] != 1
    loss_fn.reset_parameters()
    assert loss_fn.num_forwards == 0


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_tasks_that_share_a_head_learn_one_sigma_for_the_average_of_their_losses(estimator):
    head = GaussianHead()
    loss_fn = UncertaintyWeightedLoss(
        {"left": head, "right": head}, share_heads=True, estimator=estimator, momentum=1.0
    )
    values = {"left": leaf(2.0), "right": leaf(6.0)}
    optimizer = torch.optim.SGD([leaf(0.0), *loss_fn.parameters()], lr=0.1, momentum=0.9)
    for _ in range(300):
        optimizer.zero_grad()
        loss_fn(values).total.backward()
        optimizer.step()
    assert loss_fn.sigmas()["left"].item() == pytest.approx(2, rel=1e-3)
    loss_fn.reset_parameters()
    loss_fn.initialize_from({"left": leaf(4.0), "right": None})
    assert loss_fn.sigmas()["right"].item() == pytest.approx(2, rel=1e-5)


def test_one_warning_says_that_the_graph_was_cut():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    with pytest.warns(UserWarning, match=r"No reduced loss carries a gradient.*`\.item\(\)`"):
        loss_fn(torch.tensor([1.0, 2.0]))
    loss_fn(torch.tensor([1.0, 2.0]))  # Warnings are errors: it comes once.
    other = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    other({"a": torch.tensor(1.0), "b": leaf(1.0)})
    other({"a": None, "b": None})
    other.eval()(torch.tensor([1.0, 2.0]))
    with torch.no_grad():
        other.train()(torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "moving"}, r"`estimator` should be one of \['learned', 'closed_form'\]"),
        ({"momentum": 0.0}, "`momentum` should be above 0 and at most 1.*Found 0.0"),
        ({"constraint": "sum"}, r"`constraint` should be one of \[None, 'unit_sum'\]"),
        ({"priorities": {"c": 1.0}}, r"`priorities`.*unknown: \['c'\]"),
        ({"priorities": {"a": -1.0}}, r"`priorities\['a'\]`.*above 0. Found -1.0"),
        ({"warmup_steps": -1}, "`warmup_steps`.*0 or more. Found -1"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UncertaintyWeightedLoss({"a": "gaussian"}, **options)


def test_options_that_do_not_combine_are_refused():
    exact = {"a": ScaledSoftmaxHead(exact=True)}
    with pytest.raises(ValueError, match=r"Task .a.: .*no closed form"):
        UncertaintyWeightedLoss(exact, estimator="closed_form")
    with pytest.raises(ValueError, match=r"`warmup_steps`.*\['a'\]"):
        UncertaintyWeightedLoss(exact, warmup_steps=1)
    UncertaintyWeightedLoss({"a": HeteroscedasticLaplaceHead()}, estimator="closed_form")


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_loss_that_is_nan_is_no_estimate(estimator):
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"}, estimator=estimator)
    loss_fn.initialize_from({"a": torch.tensor(4.0)})
    loss_fn.initialize_from({"a": torch.tensor(math.nan)})
    assert loss_fn.sigmas()["a"] == pytest.approx(2.0)
    if estimator == "closed_form":
        loss_fn({"a": torch.tensor(math.nan, requires_grad=True)})
        assert loss_fn.sigmas()["a"] == pytest.approx(2.0)


def test_a_loss_that_is_nan_is_no_estimate_under_a_unit_sum():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "gaussian"}, constraint="unit_sum")
    loss_fn.initialize_from({"a": torch.tensor(4.0), "b": torch.tensor(1.0)})
    before = loss_fn.sigmas()
    loss_fn.initialize_from({"a": torch.tensor(math.nan), "b": torch.tensor(1.0)})
    assert all(sigma.isfinite() for sigma in loss_fn.sigmas().values())
    assert before.keys() == loss_fn.sigmas().keys()
