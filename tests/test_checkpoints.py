"""Checkpoints: by task name, of older versions, of the other estimator, and of wrapped modules."""

import io

import pytest
import torch
from torch import nn

from tests.scene import PAIR, assert_same_state, leaf, leaves, numbers, scene_loss, state_of
from uncertainty_mtl import GaussianHead, UncertaintyWeightedLoss

both_estimators = pytest.mark.parametrize("estimator", ["learned", "closed_form"])


class Model(nn.Module):
    """A module that holds the loss: its `load_state_dict` does not call that of the loss."""

    def __init__(self, loss_fn: UncertaintyWeightedLoss) -> None:
        super().__init__()
        self.loss_fn = loss_fn


def as_it_is(loss_fn):
    return loss_fn, loss_fn, ""


def in_a_parent(loss_fn):
    return Model(loss_fn), loss_fn, "loss_fn."


def as_a_group(loss_fn):
    return UncertaintyWeightedLoss({"g": loss_fn}), loss_fn, "heads.g."


def as_a_group_in_a_parent(loss_fn):
    return Model(UncertaintyWeightedLoss({"g": loss_fn})), loss_fn, "loss_fn.heads.g."


wherever = pytest.mark.parametrize(
    "holder", [as_it_is, in_a_parent, as_a_group, as_a_group_in_a_parent], ids=lambda f: f.__name__
)


def test_state_dict_carries_task_names():
    assert list(scene_loss().state_dict()) == [
        "heads.semantic.log_var",
        "heads.semantic.num_batches_tracked",
        "heads.instance.log_var",
        "heads.instance.num_batches_tracked",
        "heads.depth.log_var",
        "heads.depth.num_batches_tracked",
    ]
    closed = UncertaintyWeightedLoss(PAIR, estimator="closed_form", constraint="unit_sum")
    assert set(closed.state_dict()) == {
        *(f"heads.{task}.{name}" for task in PAIR for name in ("log_var", "num_batches_tracked")),
        *(f"scales.running_losses.{task}" for task in PAIR),
        *(f"constraint.last_log_vars.{task}" for task in PAIR),
    }


def test_a_learned_sigma_counts_its_start_and_a_closed_form_every_batch():
    learned = UncertaintyWeightedLoss(PAIR)
    closed = UncertaintyWeightedLoss(PAIR, estimator="closed_form")
    for _ in range(5):
        for loss_fn in (learned, closed):
            loss_fn({"a": leaf(4.0), "b": None})
    for loss_fn, expected in ((learned, 1), (closed, 5)):
        assert loss_fn["a"].num_batches_tracked.item() == expected
        assert loss_fn["b"].num_batches_tracked.item() == 0


@both_estimators
@wherever
@pytest.mark.parametrize("has_count", [False, True])
def test_an_older_checkpoint_counts_as_started(estimator, holder, has_count):
    module, loss_fn, prefix = holder(UncertaintyWeightedLoss(PAIR, estimator=estimator))
    log_vars = {"a": torch.tensor([2.0]), "b": torch.tensor([-1.0])}
    old = {f"{prefix}heads.{task}.log_var": value for task, value in log_vars.items()}
    if has_count:  # those of the closed form had one, and no running means, or all in one vector
        old[f"{prefix}scales.running_losses"] = torch.tensor([1e3, 1e-3])
        old[f"{prefix}constraint.last_log_weights"] = torch.tensor([0.0, 0.0])
        old |= {f"{prefix}heads.{task}.num_batches_tracked": torch.tensor(7) for task in log_vars}
    module.load_state_dict(old)
    expected = {task: (value / 2).exp().item() for task, value in log_vars.items()}
    assert numbers(loss_fn.sigmas()) == pytest.approx(expected)
    assert loss_fn["a"].num_batches_tracked.item() == (7 if has_count else 1)

    loss_fn(leaves([100.0, 100.0]))
    if estimator == "closed_form":
        # A tenth of the way from the old optimum to the new loss: sigma^2, and sigma / sqrt(2).
        expected = {
            "a": (0.9 * expected["a"] ** 2 + 0.1 * 100) ** 0.5,
            "b": 0.9 * expected["b"] + 0.1 * 100 * 2**0.5,
        }
    assert numbers(loss_fn.sigmas()) == pytest.approx(expected, rel=1e-5)


@both_estimators
def test_an_older_checkpoint_with_channels_counts_as_started(estimator):
    loss_fn = UncertaintyWeightedLoss({"a": GaussianHead(num_channels=2)}, estimator=estimator)
    loss_fn.load_state_dict({"heads.a.log_var": torch.tensor([2.0, 4.0])})
    assert loss_fn["a"].num_batches_tracked.tolist() == [1, 1]
    loss_fn.load_state_dict(
        {
            "heads.a.log_var": torch.tensor([2.0, 4.0]),
            "heads.a.num_batches_tracked": torch.tensor(9),
        }
    )
    assert loss_fn["a"].num_batches_tracked.tolist() == [9, 9]


@wherever
def test_either_estimator_loads_the_checkpoint_of_the_other(holder):
    closed_module, closed, _ = holder(UncertaintyWeightedLoss(PAIR, estimator="closed_form"))
    learned_module, learned, _ = holder(UncertaintyWeightedLoss(PAIR))
    closed(leaves([4.0, 3.0]))
    saved = state_of(closed_module)
    learned_module.load_state_dict(saved)
    assert_same_state(saved, state_of(closed_module))
    assert numbers(learned.sigmas()) == pytest.approx({"a": 2, "b": 3 * 2**0.5})
    learned(leaves([100.0, 100.0]))
    assert numbers(learned.sigmas()) == pytest.approx({"a": 2, "b": 3 * 2**0.5}), "started"

    again_module, again, _ = holder(
        UncertaintyWeightedLoss(PAIR, estimator="closed_form", momentum=0.5)
    )
    again_module.load_state_dict(learned_module.state_dict())
    again(leaves([6.0, 5.0]))
    assert numbers(again.sigmas()) == pytest.approx({"a": 5**0.5, "b": 4 * 2**0.5})


@both_estimators
@wherever
def test_a_checkpoint_of_a_loss_that_has_not_started_starts_later(estimator, holder):
    saved, _, _ = holder(UncertaintyWeightedLoss(PAIR, estimator=estimator))
    module, loss_fn, _ = holder(UncertaintyWeightedLoss(PAIR, estimator=estimator))
    for _ in range(3):
        loss_fn(leaves([9.0, 9.0]))
    module.load_state_dict(saved.state_dict())
    loss_fn(leaves([4.0, 3.0]))
    assert numbers(loss_fn.sigmas()) == pytest.approx({"a": 2, "b": 3 * 2**0.5})


def test_a_loss_loads_while_it_is_a_group_and_while_it_is_not():
    inner, alone = UncertaintyWeightedLoss(PAIR), UncertaintyWeightedLoss(PAIR)
    outer = UncertaintyWeightedLoss({"g": inner, "c": "softmax"})
    outer({"g": dict(zip(PAIR, leaves([4.0, 3.0]), strict=True)), "c": leaf(1.0)})
    alone.load_state_dict(inner.state_dict())
    assert alone.sigmas() == inner.sigmas()
    alone.load_state_dict(
        {
            name.removeprefix("heads.g."): value
            for name, value in outer.state_dict().items()
            if name.startswith("heads.g.")
        }
    )
    outer["g"].load_state_dict(alone.state_dict())
    assert outer.sigmas()["g.a"].item() == pytest.approx(2)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.loss."])
@pytest.mark.parametrize("others", [{}, {"backbone.weight": torch.ones(1)}])
def test_a_prefix_is_named(prefix, others):
    state = {prefix + name: value for name, value in scene_loss().state_dict().items()}
    with pytest.raises(RuntimeError, match=f"prefix '{prefix}'.*removeprefix") as error:
        scene_loss().load_state_dict(state | others)
    assert "strict=False" not in str(error.value)


@pytest.mark.parametrize("state", [{}, {"backbone.weight": torch.ones(1)}])
def test_a_checkpoint_without_any_sigma_is_not_to_be_loaded_anyway(state):
    with pytest.raises(RuntimeError, match=r"missing: \['semantic', 'instance'") as error:
        scene_loss().load_state_dict(state)
    assert "strict=False" not in str(error.value)


def test_loading_other_tasks_fails_by_name():
    state = scene_loss().state_dict()
    renamed = UncertaintyWeightedLoss(
        {"semantic": "softmax", "offset": "laplace", "depth": "laplace"}
    )
    expected = (
        r"missing: \['offset'\]; unexpected: \['instance'\]; "
        r"was 'instance' renamed to 'offset'\? Load"
    )
    with pytest.raises(RuntimeError, match=expected):
        renamed.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"unexpected: \['instance', 'depth'\]"):
        UncertaintyWeightedLoss({"semantic": "softmax"}).load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"Missing.*loss_fn\.heads\.offset\.log_var"):
        Model(renamed).load_state_dict(Model(scene_loss()).state_dict())


def test_adding_or_removing_a_task_keeps_the_sigmas_of_the_others():
    loss_fn = scene_loss()
    others = UncertaintyWeightedLoss(
        {"a.b": "gaussian", "depth": "gaussian", "instance": "laplace"}
    )
    result = others.load_state_dict(loss_fn.state_dict(), strict=False)
    assert "heads.a%2Eb.log_var" in result.missing_keys
    assert "heads.semantic.log_var" in result.unexpected_keys
    assert numbers(others.sigmas()) == pytest.approx({"a.b": 1, "depth": 0.5, "instance": 2})


def test_reordered_tasks_load_by_name():
    loss_fn = scene_loss()
    reordered = UncertaintyWeightedLoss(
        {"depth": "gaussian", "semantic": "softmax", "instance": "laplace"}
    )
    reordered.load_state_dict(loss_fn.state_dict())
    for task, sigma in loss_fn.sigmas().items():
        assert reordered.sigmas()[task] == sigma


@pytest.mark.parametrize("options", [{}, {"estimator": "closed_form"}, {"constraint": "unit_sum"}])
def test_a_checkpoint_loads_without_running_code(options):
    loss_fn, other = (UncertaintyWeightedLoss(PAIR, **options) for _ in range(2))
    loss_fn(leaves([4.0, 3.0]))
    file = io.BytesIO()
    torch.save(loss_fn.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    assert_same_state(state_of(other), state_of(loss_fn))


def test_assigned_tensors_are_the_ones_that_are_used():
    loss_fn, saved = UncertaintyWeightedLoss(PAIR), UncertaintyWeightedLoss(PAIR)
    saved(leaves([4.0, 3.0]))
    loss_fn(leaves([9.0, 9.0]))
    loss_fn.load_state_dict(state_of(saved), assign=True)
    losses = leaves([4.0, 3.0])
    loss_fn(losses).total.backward()
    assert [loss.grad.item() for loss in losses] == pytest.approx([0.5 / 4, 1 / 3])


@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "closed_form"},
        {"estimator": "closed_form", "constraint": "unit_sum"},
        {"constraint": "unit_sum"},
        {"estimator": "closed_form", "constraint": "softmax", "temperature": 0.1},
    ],
    ids=str,
)
def test_a_checkpoint_is_read_by_name_also_if_tasks_have_another_order_or_number(options):
    saved = UncertaintyWeightedLoss(PAIR, **options)
    for losses in ({"a": leaf(100.0), "b": leaf(0.01)}, {"a": leaf(80.0), "b": leaf(0.02)}):
        saved(losses)
    other_order = UncertaintyWeightedLoss(dict(reversed(PAIR.items())), **options)
    other_order.load_state_dict(saved.state_dict())
    for module in (saved, other_order):
        module({"a": leaf(70.0), "b": None})
    assert numbers(other_order.weights()) == pytest.approx(numbers(saved.weights()))

    more = UncertaintyWeightedLoss({"new": "laplace", **PAIR}, **options)
    more.load_state_dict(saved.state_dict(), strict=False)
    assert more["a"].sigma == saved["a"].sigma
    more({"new": leaf(1.0), "a": leaf(70.0), "b": leaf(0.02)})


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_a_checkpoint_in_half_precision_leaves_the_state_in_float32(estimator):
    loss_fn = UncertaintyWeightedLoss(PAIR, estimator=estimator, constraint="unit_sum")
    loss_fn(leaves([4.0, 3.0]))
    half = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in loss_fn.state_dict().items()
    }
    for assign in (False, True):
        loaded = UncertaintyWeightedLoss(PAIR, estimator=estimator, constraint="unit_sum")
        loaded.load_state_dict(half, assign=assign)
        dtypes = {value.dtype for value in loaded.state_dict().values()}
        assert dtypes == {torch.float32, torch.int64}
