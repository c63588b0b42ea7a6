"""How the loss is called: names, orders, and what an unusable call or constructor is told."""

import itertools
import math
from collections import OrderedDict, namedtuple
from types import MappingProxyType

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.scene import HEADS, leaf, scene_batch, scene_loss
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

# Constants stand for losses here; that the loss warns of them is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:No reduced loss carries a gradient")


def test_reduced_losses_come_by_name_in_order_or_stacked():
    heads = {
        "depth": LaplaceHead(init_sigma=1.0),
        "normals": GaussianHead(init_sigma=1.0),
        "semantic": ScaledSoftmaxHead(init_sigma=1.0),
    }
    loss_fn, values = UncertaintyWeightedLoss(heads), torch.tensor([0.3, 2.0, 1.1])
    # sigma = 1: sqrt(2) * MAE + 0.5 * MSE + CE.
    expected = torch.tensor(math.sqrt(2) * 0.3 + 0.5 * 2.0 + 1.1)
    by_name = dict(zip(heads, values, strict=True))
    for losses in (
        by_name,
        dict(reversed(by_name.items())),
        OrderedDict(by_name),
        MappingProxyType(by_name),
        list(values),
        tuple(values),
        values,
    ):
        torch.testing.assert_close(loss_fn(losses).total, expected)


def test_heads_may_be_named():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace", "c": "softmax"})
    assert [type(loss_fn[task]) for task in loss_fn] == [
        GaussianHead,
        LaplaceHead,
        ScaledSoftmaxHead,
    ]
    assert len(loss_fn) == 3
    assert "a" in loss_fn


def test_sequences_are_in_the_order_of_the_constructor():
    for order in itertools.permutations(["a", "b", "c"]):
        loss_fn = UncertaintyWeightedLoss(
            {task: HEADS["softmax"](init_sigma=1.0) for task in order}
        )
        tasks = loss_fn([torch.tensor(float(i)) for i in range(3)]).tasks
        assert [tasks[task].item() for task in order] == [0, 1, 2]


def test_a_namedtuple_of_other_fields_lists_both_sets():
    other = namedtuple("Other", ["depth", "instance", "labels"])
    with pytest.raises(ValueError, match=r"missing: \['semantic'\]; unknown: \['labels'\]"):
        scene_loss()(other(*torch.ones(3)))


def test_a_namedtuple_of_a_group_is_read_by_its_fields():
    group = UncertaintyWeightedLoss({"x": "laplace", "y": "gaussian"})
    loss_fn = UncertaintyWeightedLoss({"flow": group})
    pair = namedtuple("Pair", ["y", "x"])
    errors = loss_fn({"flow": pair(y=leaf(100.0), x=leaf(1.0))}).errors
    assert {task: error.item() for task, error in errors.items()} == {"flow.x": 1, "flow.y": 100}


AWKWARD = ["type", "keys", "a.b", "train", "heads", "%74ype", "log_var", "a b", "größe", "forward"]


@given(tasks=st.lists(st.sampled_from(AWKWARD) | st.text(min_size=1), min_size=1, unique=True))
def test_any_string_is_a_task_name(tasks):
    loss_fn = UncertaintyWeightedLoss(
        {task: GaussianHead(init_sigma=2 + i) for i, task in enumerate(tasks)}
    )
    losses = loss_fn({task: torch.tensor(1.0) for task in tasks})
    losses.total.backward()
    assert list(losses.tasks) == list(losses.errors) == list(loss_fn.sigmas()) == tasks
    assert len(list(loss_fn.parameters())) == len(tasks)

    other = UncertaintyWeightedLoss(dict.fromkeys(tasks, "gaussian"))
    other.load_state_dict(loss_fn.state_dict())
    for i, task in enumerate(tasks):
        assert other.sigmas()[task].item() == pytest.approx(2 + i)
    for name, _ in loss_fn.named_parameters():
        assert loss_fn.get_parameter(name) is not None


@pytest.mark.parametrize("argument", [0, 1])
def test_names_that_do_not_match_list_both_sets(argument):
    batch = list(scene_batch())
    batch[argument] = {("offset" if k == "instance" else k): v for k, v in batch[argument].items()}
    expected = (
        r"\['semantic', 'instance', 'depth'\].*missing: \['instance'\]; unknown: \['offset'\]"
    )
    with pytest.raises(ValueError, match=expected):
        scene_loss()(*batch)


def test_a_mask_for_an_unknown_task_is_refused():
    predictions, targets, _ = scene_batch()
    with pytest.raises(ValueError, match=r"`masks`.*unknown: \['dept'\]"):
        scene_loss()(predictions, targets, {"dept": None})


@pytest.mark.parametrize(
    ("shapes", "hint"),
    [
        (((64, 1), (64,)), "Drop the extra axis of `prediction`"),
        (((64,), (64, 1)), "Drop the extra axis of `target`"),
        (((8,), (7,)), None),
        (((2, 3), (3, 2)), None),
    ],
)
def test_an_extra_axis_is_named_where_there_is_one(shapes, hint):
    prediction, target = map(torch.zeros, shapes)
    with pytest.raises(ValueError, match="same shape") as error:
        LaplaceHead()(prediction, target)
    assert (hint or "Found") in str(error.value)
    assert ("squeeze" in str(error.value)) == (hint is not None)


def test_an_unknown_likelihood_is_answered_with_the_losses_that_the_names_stand_for():
    with pytest.raises(ValueError, match=r"'gaussian' \(mean squared error\).*Found 'mse'"):
        UncertaintyWeightedLoss({"depth": "mse"})
    with pytest.raises(TypeError, match=r"such as \{'depth': 'laplace'\}. Found list"):
        UncertaintyWeightedLoss(["depth"])


def test_a_name_too_many_is_to_be_left_out():
    losses = {"depth": torch.ones(()), "loss": torch.ones(())}
    with pytest.raises(
        ValueError, match=r"unknown: \['loss'\]. Leave out entries that belong to no task"
    ) as error:
        UncertaintyWeightedLoss({"depth": "laplace"})(losses)
    assert "None" not in str(error.value)


def test_errors_name_the_task():
    predictions, targets, masks = scene_batch()
    with pytest.raises(ValueError, match=r"Task 'depth': .*\(2, 1, 4, 4\).*\(2, 4, 4\)"):
        scene_loss()(predictions, {**targets, "depth": targets["depth"].squeeze(1)}, masks)
    with pytest.raises(TypeError, match=r"Task 'depth': `prediction` should be.*None as its"):
        scene_loss()({**predictions, "depth": None}, targets, masks)
    with pytest.raises(TypeError, match=r"Found ndarray. Convert it with `torch.as_tensor\(target"):
        scene_loss()(predictions, {**targets, "depth": targets["depth"].numpy()}, masks)
    with pytest.raises(ValueError, match=r"Task 'semantic': .*loss_fn\(predictions, targets\)"):
        scene_loss()(predictions)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (([torch.tensor(1.0)],), ValueError, "3 for .*Found 1"),
        ((torch.tensor(1.0),), TypeError, "`predictions` should be a mapping"),
        ((torch.ones(3), {}), TypeError, "`predictions` should be a mapping.*Found Tensor"),
        ((dict.fromkeys(["semantic", "instance", "depth"]), None, {}), ValueError, "`masks`"),
    ],
)
def test_unusable_calls_say_what_was_expected(inputs, error, message):
    with pytest.raises(error, match=message):
        scene_loss()(*inputs)


@pytest.mark.parametrize(
    ("heads", "error", "message"),
    [
        ({}, ValueError, "at least one task"),
        ([LaplaceHead()], TypeError, "a mapping from task name to likelihood.*Found list"),
        ({"depth": "laplacian"}, ValueError, r"'gaussian' .*'laplace' .*'softmax' .*'laplacian'"),
        ({"depth": LaplaceHead}, TypeError, "Found the class LaplaceHead. Call it"),
        ({"depth": 1.0}, TypeError, "Found float"),
        ({"": "laplace"}, ValueError, "non-empty strings. Found ''"),
        ({3: "laplace"}, ValueError, "non-empty strings. Found 3"),
        (
            {"a.b": "laplace", "a": UncertaintyWeightedLoss({"b": "laplace"})},
            ValueError,
            r"\['a.b'\] more than once",
        ),
    ],
)
def test_unusable_heads_say_what_was_expected(heads, error, message):
    with pytest.raises(error, match=message):
        UncertaintyWeightedLoss(heads)


def test_an_unknown_task_is_no_key_error():
    with pytest.raises(ValueError, match=r"\['semantic', 'instance', 'depth'\]. Found 'deph'"):
        scene_loss()["deph"]


# "meta" stands in for a second device.
def test_losses_on_another_device_point_to_the_move_of_the_loss():
    loss_fn = UncertaintyWeightedLoss({"depth": "laplace"})
    elsewhere = torch.ones((), device="meta", requires_grad=True)
    with pytest.raises(ValueError, match=r"'cpu'. Found 'meta'. .*`loss_fn.to\('meta'\)`"):
        loss_fn({"depth": elsewhere})
    with pytest.raises(ValueError, match=r"'cpu'. Found 'meta'.*`loss_fn.to\('meta'\)`"):
        loss_fn({"depth": elsewhere.expand(3)}, {"depth": elsewhere.expand(3).detach()})
    with pytest.raises(ValueError, match=r"`loss_fn.to\('meta'\)`"):
        loss_fn.initialize_from({"depth": elsewhere})
    loss_fn = loss_fn.to("cpu").eval()
    with pytest.raises(ValueError, match=r"`loss_fn.to\('meta'\)`"):
        loss_fn({"depth": elsewhere})


def test_losses_on_two_devices_say_which_task_is_where():
    losses = {"a": leaf(1.0), "b": torch.ones((), device="meta", requires_grad=True)}
    with pytest.raises(ValueError, match=r"on one device.*'a': 'cpu', 'b': 'meta'"):
        UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})(losses)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"estimator": "moving"}, r"`estimator` should be one of \['learned', 'closed_form'"),
        ({"momentum": 0.0}, "`momentum`.*above 0 and at most 1. Found 0.0"),
        ({"constraint": "sum"}, r"`constraint` should be one of \[None, 'unit_sum'"),
        ({"form": "kendall"}, r"`form` should be one of .*Found 'kendall'"),
        ({"priorities": {"c": 1.0}}, r"`priorities`.*unknown: \['c'\]"),
        ({"priorities": {"a": -1.0}}, r"`priorities\['a'\]`.*above 0. Found -1.0"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UncertaintyWeightedLoss({"a": "gaussian"}, **options)
