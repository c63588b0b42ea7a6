"""The optimizer's part: parameter groups, the check of them, frozen sigmas and cut graphs."""

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW

from tests.scene import PAIR, leaf, leaves, numbers, scene_loss
from uncertainty_mtl import GaussianHead, LaplaceHead, UncertaintyWeightedLoss

both_estimators = pytest.mark.parametrize("estimator", ["learned", "closed_form"])


def at_one() -> UncertaintyWeightedLoss:
    return UncertaintyWeightedLoss(
        {"a": GaussianHead(init_sigma=1.0), "b": LaplaceHead(init_sigma=1.0)}
    )


def test_param_groups_carry_no_weight_decay_and_their_own_rate():
    model, loss_fn = nn.Linear(2, 1), scene_loss()
    groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
    optimizer = AdamW(groups, lr=1e-3, weight_decay=0.1)
    loss_fn.check_optimizer(optimizer)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0]
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]
    assert set(optimizer.param_groups[1]["params"]) == set(loss_fn.parameters())
    assert loss_fn.param_groups(lr=0.3)[0]["lr"] == 0.3
    assert "lr" not in loss_fn.param_groups(lr=None)[0]


def test_param_groups_of_mixed_groups_hold_what_is_learned_only():
    closed = UncertaintyWeightedLoss(PAIR, estimator="closed_form")
    loss_fn = UncertaintyWeightedLoss({"g": closed, "c": "softmax"})
    (group,) = loss_fn.param_groups()
    assert [id(p) for p in group["params"]] == [id(loss_fn["c"].log_var)]
    loss_fn.check_optimizer(SGD(loss_fn.param_groups(), lr=0.1))
    assert closed.param_groups() == []
    closed.check_optimizer(SGD(nn.Linear(1, 1).parameters(), lr=0.1))


def test_a_missing_sigma_is_named():
    loss_fn = scene_loss()
    only_depth = SGD(loss_fn["depth"].parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"no `log_var` of \['semantic', 'instance'\].*param_groups.*part of"
    ):
        loss_fn.check_optimizer(only_depth)
    group = UncertaintyWeightedLoss({"scene": loss_fn, "d": "laplace"})
    with pytest.raises(ValueError, match=r"no `log_var` of \['scene.semantic', 'scene.inst.*'d'"):
        group.check_optimizer(only_depth)
    with pytest.raises(ValueError, match=r"no `log_var` of \['semantic', 'instance', 'depth'\]"):
        loss_fn.check_optimizer()


def test_a_decayed_sigma_is_named():
    loss_fn = scene_loss()
    decayed = AdamW(loss_fn.parameters(), weight_decay=0.01)
    with pytest.raises(
        ValueError, match=r"weight decay on the `log_var` of \['semantic', 'instance', 'depth'"
    ):
        loss_fn.check_optimizer(decayed)


def test_several_optimizers_hold_the_sigmas_together():
    loss_fn = scene_loss()
    first = SGD(loss_fn["depth"].parameters(), lr=0.1)
    second = AdamW(
        [*loss_fn["semantic"].parameters(), *loss_fn["instance"].parameters()], weight_decay=0.0
    )
    loss_fn.check_optimizer(first, second)
    with pytest.raises(ValueError, match=r"no `log_var` of \['depth'\]"):
        loss_fn.check_optimizer(second)


def test_a_sigma_in_two_optimizers_is_named():
    loss_fn = scene_loss()
    whole = SGD(loss_fn.param_groups(), lr=0.1)
    depth = SGD(loss_fn["depth"].parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"the `log_var` of \['depth'\] in several groups"):
        loss_fn.check_optimizer(whole, depth)


def test_a_sigma_that_other_code_has_frozen_is_named():
    loss_fn = scene_loss()
    optimizer = SGD(loss_fn.param_groups(), lr=0.1)
    loss_fn["depth"].requires_grad_(False)
    with pytest.raises(
        ValueError,
        match=r"the `log_var` of \['depth'\] without `requires_grad`.*`loss_fn.freeze\(\)`",
    ):
        loss_fn.check_optimizer(optimizer)
    loss_fn.requires_grad_(False)
    with pytest.raises(ValueError, match=r"'semantic', 'instance', 'depth'\] without `requires"):
        loss_fn.check_optimizer(optimizer)


def test_several_faults_are_told_at_once():
    loss_fn = scene_loss()
    optimizer = AdamW(loss_fn["depth"].parameters(), weight_decay=0.1)
    with pytest.raises(ValueError, match=r"no `log_var` of \['semantic'.*and weight decay on"):
        loss_fn.check_optimizer(optimizer)


def test_frozen_sigmas_are_excused():
    loss_fn = scene_loss()
    only_depth = SGD(loss_fn["depth"].parameters(), lr=0.1)
    loss_fn.freeze("semantic", "instance")
    loss_fn.check_optimizer(only_depth)
    loss_fn.unfreeze("instance")
    with pytest.raises(ValueError, match=r"no `log_var` of \['instance'\]"):
        loss_fn.check_optimizer(only_depth)
    loss_fn.freeze()
    loss_fn.check_optimizer()
    loss_fn.check_optimizer(AdamW(loss_fn.parameters(), weight_decay=0.1))


@both_estimators
def test_frozen_sigmas_stay_until_they_are_unfrozen(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator)
    optimizer = SGD([leaf(0.0), *loss_fn.parameters()], lr=0.1, momentum=0.9)

    def step(value: float) -> None:
        optimizer.zero_grad()
        loss_fn(leaves([value, value])).total.backward()
        optimizer.step()

    step(4.0), step(4.0)
    loss_fn.freeze("a")
    before = numbers(loss_fn.sigmas())
    for _ in range(5):
        step(9.0)
    assert loss_fn.sigmas()["a"].item() == before["a"]
    assert loss_fn.sigmas()["b"].item() != before["b"]
    loss_fn.unfreeze()
    step(9.0)
    assert loss_fn.sigmas()["a"].item() != before["a"]
    with pytest.raises(ValueError, match="Found 'c'"):
        loss_fn.freeze("c")


def test_a_frozen_task_still_trains_the_network_at_its_weight():
    loss_fn = at_one()
    loss_fn.freeze("a")
    losses = leaves([4.0, 3.0])
    loss_fn(losses).total.backward()
    assert losses[0].grad.item() == 0.5
    assert loss_fn["a"].log_var.grad is None


CUT = r"loss of \['a'\] carries no gradient while others do"


def test_one_warning_tells_of_each_task_whose_graph_is_cut():
    loss_fn = UncertaintyWeightedLoss({**PAIR, "c": "softmax"})
    with pytest.warns(UserWarning, match=CUT):
        loss_fn([torch.tensor(1.0), leaf(1.0), leaf(1.0)])
    for _ in range(3):  # Warnings are errors: it comes once.
        loss_fn([torch.tensor(1.0), leaf(1.0), leaf(1.0)])
    with pytest.warns(UserWarning, match=r"\['c'\] carries no gradient while others do"):
        loss_fn([leaf(1.0), leaf(1.0), torch.tensor(1.0)])


def test_one_warning_says_that_all_graphs_were_cut():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    with pytest.warns(UserWarning, match=r"No reduced loss carries a gradient.*`\.item\(\)`"):
        loss_fn(torch.tensor([1.0, 2.0]))
    loss_fn(torch.tensor([1.0, 2.0]))


def test_a_cut_graph_is_no_matter_where_nothing_trains():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    loss_fn({"a": None, "b": leaf(1.0)})
    loss_fn({"a": None, "b": None})
    loss_fn.eval()(torch.tensor([1.0, 2.0]))
    loss_fn.train()
    with torch.no_grad():
        loss_fn(torch.tensor([1.0, 2.0]))
    loss_fn.initialize_from(torch.tensor([1.0, 2.0]))


def test_a_cut_graph_beside_predictions_is_noticed():
    loss_fn = UncertaintyWeightedLoss(PAIR)
    prediction = torch.zeros(3, requires_grad=True)
    with pytest.warns(UserWarning, match=CUT):
        loss_fn({"a": torch.tensor(1.0), "b": prediction}, {"b": torch.ones(3)})
