"""Composition: names, absent tasks, groups, the optimizer, checkpoints, compilation, processes."""

import copy
import io
import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch._dynamo.testing import CompileCounter

from tests.strategies import seeds
from uncertainty_mtl import (
    GaussianHead,
    LaplaceHead,
    MultiTaskLoss,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
)

# Constants stand for losses here; that the loss warns of them is tested elsewhere.
pytestmark = pytest.mark.filterwarnings("ignore:No reduced loss carries a gradient")


def scene_loss() -> UncertaintyWeightedLoss:
    return UncertaintyWeightedLoss(
        {
            "semantic": ScaledSoftmaxHead(ignore_index=255),
            "instance": LaplaceHead(init_sigma=2.0),
            "depth": GaussianHead(init_sigma=0.5),
        }
    )


def scene_batch(seed: int = 0) -> tuple[dict, dict, dict]:
    generator = torch.Generator().manual_seed(seed)
    predictions = {
        "semantic": torch.randn((2, 5, 4, 4), generator=generator).requires_grad_(),
        "instance": torch.randn((2, 2, 4, 4), generator=generator).requires_grad_(),
        "depth": torch.randn((2, 1, 4, 4), generator=generator).requires_grad_(),
    }
    targets = {
        "semantic": torch.randint(5, (2, 4, 4), generator=generator),
        "instance": torch.randn((2, 2, 4, 4), generator=generator),
        "depth": torch.randn((2, 1, 4, 4), generator=generator),
    }
    masks = {"instance": torch.rand((2, 4, 4), generator=generator) < 0.5, "depth": None}
    return predictions, targets, masks


def test_total_is_the_sum_of_what_each_head_says_alone():
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    losses = loss_fn(predictions, targets, masks)
    assert isinstance(losses, MultiTaskLoss)
    assert losses.total.shape == ()
    for task in loss_fn:
        alone = loss_fn[task](predictions[task], targets[task], masks.get(task))
        torch.testing.assert_close(losses.tasks[task], alone)
    torch.testing.assert_close(losses.total, sum(losses.tasks.values()))


@given(order=st.permutations(["semantic", "instance", "depth"]), seed=seeds)
def test_tasks_are_matched_by_name_whatever_the_order(order, seed):
    loss_fn, batch = scene_loss(), scene_batch(seed)
    shuffled = [{task: values[task] for task in order if task in values} for values in batch]
    permuted = UncertaintyWeightedLoss({task: loss_fn[task] for task in order})
    expected = loss_fn(*batch)
    for losses in (loss_fn(*shuffled), permuted(*batch)):
        torch.testing.assert_close(losses.total, expected.total)
        assert all(torch.equal(losses.tasks[task], expected.tasks[task]) for task in order)


def test_reduced_losses_come_by_name_in_order_or_stacked():
    heads = {"depth": "laplace", "normals": "gaussian", "semantic": "softmax"}
    loss_fn, values = UncertaintyWeightedLoss(heads), torch.tensor([0.3, 2.0, 1.1])
    # sigma = 1: sqrt(2) * MAE + 0.5 * MSE + CE.
    expected = torch.tensor(math.sqrt(2) * 0.3 + 0.5 * 2.0 + 1.1)
    by_name = dict(zip(heads, values, strict=True))
    for losses in (by_name, dict(reversed(by_name.items())), list(values), tuple(values), values):
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


@pytest.mark.parametrize("absent", ["semantic", "instance", "depth"])
def test_an_absent_task_adds_zero_and_stays_in_the_graph(absent):
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    predictions[absent] = torch.full_like(predictions[absent], math.nan).requires_grad_()
    losses = loss_fn(predictions, {**targets, absent: None}, masks)
    losses.total.backward()
    assert losses.tasks[absent].item() == 0
    assert loss_fn[absent].log_var.grad.item() == 0
    assert torch.equal(predictions[absent].grad, torch.zeros_like(predictions[absent]))
    for task in set(loss_fn) - {absent}:
        assert loss_fn[task].log_var.grad.item() != 0
        assert predictions[task].grad.any()


def test_all_tasks_may_be_absent():
    loss_fn, (predictions, targets, _) = scene_loss(), scene_batch()
    for losses in (
        loss_fn(predictions, dict.fromkeys(targets)),
        loss_fn(dict.fromkeys(targets), dict.fromkeys(targets)),
        loss_fn(dict.fromkeys(targets)),
        loss_fn([None, None, None]),
    ):
        losses.total.backward()
        assert losses.total.item() == 0
        assert all(head.grad.item() == 0 for head in loss_fn.parameters())


def test_an_absent_reduced_loss_leaves_its_sigma_alone():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
    optimizer = torch.optim.SGD(loss_fn.param_groups(lr=0.1), lr=0.1)
    loss_fn({"a": torch.tensor(3.0), "b": None}).total.backward()
    optimizer.step()
    assert loss_fn["b"].sigma.item() == 1
    assert loss_fn["a"].sigma.item() != 1


def test_precision_follows_the_inputs_and_is_at_least_float32():
    loss_fn, (predictions, targets, masks) = scene_loss().bfloat16(), scene_batch()
    half = {task: value.bfloat16() for task, value in predictions.items()}
    assert loss_fn(half, targets, masks).total.dtype == torch.float32
    double = {task: value.double() for task, value in predictions.items()}
    assert loss_fn(double, targets, masks).total.dtype == torch.float64
    mixed = {**predictions, "depth": double["depth"]}
    assert loss_fn(mixed, targets, masks).total.dtype == torch.float64
    assert loss_fn({"semantic": None, "instance": None, "depth": None}).total.dtype == torch.float32


def test_sigmas_and_weights_are_detached_and_by_name():
    loss_fn = scene_loss()
    expected = {"semantic": (1, 1), "instance": (2, math.sqrt(2) / 2), "depth": (0.5, 2)}
    for task, (sigma, weight) in expected.items():
        assert loss_fn.sigmas()[task].item() == pytest.approx(sigma)
        assert loss_fn.weights()[task].item() == pytest.approx(weight)
    assert not any(value.requires_grad for value in loss_fn.weights().values())


def test_base_losses_are_those_of_the_last_forward():
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    assert loss_fn.base_losses() == {}
    nested = UncertaintyWeightedLoss({"scene": loss_fn, "extra": "gaussian"})
    nested(
        {"scene": predictions, "extra": torch.tensor(3.0)},
        {"scene": {**targets, "depth": None}},
        {"scene": masks},
    )
    valid = masks["instance"].unsqueeze(1).expand(2, 2, 4, 4)
    found = nested.base_losses()
    expected = (predictions["instance"] - targets["instance"]).abs()[valid].mean()
    torch.testing.assert_close(found["scene.instance"], expected)
    expected = nn.functional.cross_entropy(predictions["semantic"], targets["semantic"])
    torch.testing.assert_close(found["scene.semantic"], expected)
    assert found["scene.depth"].isnan()
    assert found["extra"].item() == 3
    assert not any(loss.requires_grad for loss in found.values())
    counts = {name: count.item() for name, count in nested.num_valid().items()}
    num_labels = targets["semantic"].numel()
    assert counts == {
        "scene.semantic": num_labels,
        "scene.instance": valid.sum().item(),
        "scene.depth": 0,
        "extra": 1,
    }


def test_base_losses_of_groups_alone_are_those_of_their_tasks():
    groups = {"a": UncertaintyWeightedLoss({"x": "laplace", "y": "gaussian"}), "b": scene_loss()}
    loss_fn = UncertaintyWeightedLoss(groups)
    assert loss_fn.base_losses() == loss_fn.num_valid() == {}
    mae, mse = torch.tensor([2.0, 5.0], requires_grad=True)
    predictions, targets, masks = scene_batch()
    loss_fn({"a": {"x": mae, "y": mse}, "b": predictions}, {"b": targets}, {"b": masks})
    found = loss_fn.base_losses()
    assert list(found) == ["a.x", "a.y", "b.semantic", "b.instance", "b.depth"]
    assert found["a.x"] == 2
    assert found["a.y"] == 5
    assert loss_fn.num_valid()["a.y"] == 1


def test_base_losses_follow_the_kind_of_the_last_forward():
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian"})
    loss_fn({"a": torch.tensor(3.0, requires_grad=True)})
    assert loss_fn.base_losses()["a"] == 3
    loss_fn({"a": torch.zeros(4)}, {"a": torch.ones(4)})
    assert loss_fn.base_losses()["a"] == 1
    assert loss_fn.num_valid()["a"] == 4
    loss_fn({"a": torch.tensor(7.0, requires_grad=True)})
    assert loss_fn.base_losses()["a"] == 7
    assert loss_fn.num_valid()["a"] == 1


def test_param_groups_carry_no_weight_decay_and_their_own_rate():
    model, loss_fn = nn.Linear(2, 1), scene_loss()
    groups = [{"params": model.parameters()}, *loss_fn.param_groups(lr=1e-2)]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.1)
    loss_fn.check_optimizer(optimizer)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0]
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3, 1e-2]
    assert set(optimizer.param_groups[1]["params"]) == set(loss_fn.parameters())
    assert "lr" not in loss_fn.param_groups()[0]


def test_check_optimizer_names_the_tasks_that_would_not_be_learned():
    loss_fn = scene_loss()
    only_depth = torch.optim.SGD(loss_fn["depth"].parameters(), lr=0.1)
    with pytest.raises(
        ValueError, match=r"no `log_var` of \['semantic', 'instance'\].*param_groups.*part of"
    ):
        loss_fn.check_optimizer(only_depth)
    decayed = torch.optim.AdamW(loss_fn.parameters(), weight_decay=0.01)
    with pytest.raises(
        ValueError, match=r"weight decay on that of \['semantic', 'instance', 'depth'"
    ):
        loss_fn.check_optimizer(decayed)
    loss_fn.requires_grad_(False)
    loss_fn.check_optimizer(only_depth)


AWKWARD = ["type", "keys", "a.b", "train", "heads", "%74ype", "log_var", "a b", "größe", "forward"]


@given(tasks=st.lists(st.sampled_from(AWKWARD) | st.text(min_size=1), min_size=1, unique=True))
def test_any_string_is_a_task_name(tasks):
    loss_fn = UncertaintyWeightedLoss(
        {task: GaussianHead(init_sigma=2 + i) for i, task in enumerate(tasks)}
    )
    losses = loss_fn({task: torch.tensor(1.0) for task in tasks})
    losses.total.backward()
    assert list(losses.tasks) == list(loss_fn.sigmas()) == tasks
    assert len(list(loss_fn.parameters())) == len(loss_fn.state_dict()) == len(tasks)

    other = UncertaintyWeightedLoss(dict.fromkeys(tasks, "gaussian"))
    other.load_state_dict(loss_fn.state_dict())
    for i, task in enumerate(tasks):
        assert other.sigmas()[task].item() == pytest.approx(2 + i)
    for name, _ in loss_fn.named_parameters():
        assert loss_fn.get_parameter(name) is not None


def test_state_dict_carries_task_names():
    assert list(scene_loss().state_dict()) == [
        "heads.semantic.log_var",
        "heads.instance.log_var",
        "heads.depth.log_var",
    ]


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

    class Model(nn.Module):
        def __init__(self, loss_fn):
            super().__init__()
            self.loss_fn = loss_fn

    with pytest.raises(RuntimeError, match=r"Missing.*loss_fn\.heads\.offset\.log_var"):
        Model(renamed).load_state_dict(Model(scene_loss()).state_dict())


def test_adding_or_removing_a_task_keeps_the_sigmas_of_the_others():
    loss_fn = scene_loss()
    others = UncertaintyWeightedLoss(
        {"a.b": "gaussian", "depth": "gaussian", "instance": "laplace"}
    )
    result = others.load_state_dict(loss_fn.state_dict(), strict=False)
    assert result.missing_keys == ["heads.a%2Eb.log_var"]
    assert result.unexpected_keys == ["heads.semantic.log_var"]
    sigmas = {task: sigma.item() for task, sigma in others.sigmas().items()}
    assert sigmas == pytest.approx({"a.b": 1, "depth": 0.5, "instance": 2})


def test_reordered_tasks_load_by_name():
    loss_fn = scene_loss()
    reordered = UncertaintyWeightedLoss(
        {"depth": "gaussian", "semantic": "softmax", "instance": "laplace"}
    )
    reordered.load_state_dict(loss_fn.state_dict())
    for task, sigma in loss_fn.sigmas().items():
        assert reordered.sigmas()[task] == sigma


def test_training_resumes_bit_identically_from_a_checkpoint():
    def build():
        torch.manual_seed(0)
        model, loss_fn = nn.Linear(3, 2), UncertaintyWeightedLoss({"a": "gaussian", "b": "laplace"})
        groups = [{"params": model.parameters()}, *loss_fn.param_groups(lr=1e-2)]
        return model, loss_fn, torch.optim.AdamW(groups, lr=1e-2)

    def train(parts, steps):
        model, loss_fn, optimizer = parts
        for step in steps:
            x = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
            a, b = model(x).unbind(1)
            total, _ = loss_fn({"a": a, "b": b}, {"a": x[:, 0], "b": 5 * x[:, 1]})
            optimizer.zero_grad()
            total.backward()
            optimizer.step()

    whole, first, second = build(), build(), build()
    train(whole, range(20))
    train(first, range(10))
    file = io.BytesIO()
    torch.save([part.state_dict() for part in first], file)
    file.seek(0)
    for part, state in zip(second, torch.load(file, weights_only=True), strict=True):
        part.load_state_dict(state)
    train(second, range(10, 20))
    for a, b in zip(whole[:2], second[:2], strict=True):
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_accumulated_steps_divide_the_total():
    # Dividing the losses instead, but not the log term, makes sigma^2 too small by their number.
    whole, parts = (UncertaintyWeightedLoss({"a": "gaussian"}) for _ in range(2))
    prediction, target = torch.randn(2, 8, 3)
    whole({"a": prediction}, {"a": target}).total.backward()
    for i in range(4):
        rows = slice(2 * i, 2 * i + 2)
        (parts({"a": prediction[rows]}, {"a": target[rows]}).total / 4).backward()
    torch.testing.assert_close(parts["a"].log_var.grad, whole["a"].log_var.grad)


def test_a_loss_may_be_a_task_of_another():
    def group():
        return UncertaintyWeightedLoss({"x": "laplace", "y": GaussianHead(init_sigma=3.0)})

    nested = UncertaintyWeightedLoss({"flow": group(), "depth": "laplace"})
    flat = UncertaintyWeightedLoss(
        {"x": "laplace", "y": GaussianHead(init_sigma=3.0), "depth": "laplace"}
    )
    values = {"x": torch.randn(4, 2), "y": torch.randn(4, 2)}
    depth = torch.randn(4, 2)
    mask = torch.tensor([[True, False]]).expand(4, 2)
    zero = torch.zeros(4, 2)
    grouped = nested(
        {"flow": {"x": zero, "y": zero}, "depth": zero},
        {"flow": values, "depth": depth},
        {"flow": {"x": mask}},
    )
    plain = flat(dict.fromkeys(flat, zero), {**values, "depth": depth}, {"x": mask})
    torch.testing.assert_close(grouped.total, plain.total)
    torch.testing.assert_close(grouped.tasks["flow"], plain.tasks["x"] + plain.tasks["y"])
    assert list(nested.sigmas()) == ["flow.x", "flow.y", "depth"]
    assert nested["flow"]["y"].sigma.item() == pytest.approx(3)

    reduced = {"x": torch.tensor(1.0), "y": torch.tensor(2.0)}
    torch.testing.assert_close(
        nested({"flow": reduced, "depth": None}).total, flat({**reduced, "depth": None}).total
    )
    for losses in (
        nested({"flow": None, "depth": None}),
        nested({"flow": {"x": zero, "y": zero}, "depth": zero}, {"flow": None, "depth": None}),
    ):
        losses.total.backward()
        assert losses.total.item() == 0
    assert all(parameter.grad is not None for parameter in nested.parameters())
    nested.check_optimizer(torch.optim.SGD(nested.param_groups(), lr=0.1))


def test_one_head_serves_two_tasks_only_if_told_to():
    head = LaplaceHead()
    with pytest.raises(ValueError, match=r"'left' and 'right'.*share_heads=True"):
        UncertaintyWeightedLoss({"left": head, "right": head})
    shared = UncertaintyWeightedLoss({"left": head, "right": head}, share_heads=True)
    assert len(list(shared.parameters())) == 1
    shared({"left": torch.tensor(1.0), "right": torch.tensor(1.0)}).total.backward()
    alone = LaplaceHead()
    alone.weigh(torch.tensor(1.0)).backward()
    torch.testing.assert_close(head.log_var.grad, 2 * alone.log_var.grad)


def test_reset_reaches_every_head():
    loss_fn = scene_loss()
    before = copy.deepcopy(loss_fn.state_dict())
    with torch.no_grad():
        for parameter in loss_fn.parameters():
            parameter.add_(1)
    loss_fn.reset_parameters()
    assert all(torch.equal(loss_fn.state_dict()[name], value) for name, value in before.items())


@pytest.mark.parametrize("absent", [None, "depth"])
def test_compiles_in_one_graph(absent):
    loss_fn, (predictions, targets, masks) = scene_loss(), scene_batch()
    targets = {**targets, absent: None} if absent else targets
    compiled = torch.compile(copy.deepcopy(loss_fn), backend="aot_eager", fullgraph=True)
    expected, losses = loss_fn(predictions, targets, masks), compiled(predictions, targets, masks)
    torch.testing.assert_close(losses.total, expected.total)
    losses.total.backward()
    expected.total.backward()
    for a, b in zip(compiled.parameters(), loss_fn.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_reduced_losses_compile_in_one_graph_even_under_awkward_names():
    loss_fn = UncertaintyWeightedLoss({"type": "gaussian", "a.b": "laplace"})
    compiled = torch.compile(copy.deepcopy(loss_fn), backend="aot_eager", fullgraph=True)
    losses = {"type": torch.tensor(2.0), "a.b": torch.tensor(3.0)}
    torch.testing.assert_close(compiled(losses).total, loss_fn(losses).total)


def test_no_compilation_is_repeated_for_other_values():
    torch._dynamo.reset()
    counter = CompileCounter()
    compiled = torch.compile(scene_loss(), backend=counter, fullgraph=True)
    for seed in range(4):
        compiled(*scene_batch(seed))
    assert counter.frame_count == 1


def test_the_module_survives_a_functional_call_and_a_copy():
    loss_fn, batch = scene_loss(), scene_batch()
    parameters = {name: value.detach() for name, value in loss_fn.named_parameters()}
    expected = loss_fn(*batch).total
    torch.testing.assert_close(
        torch.func.functional_call(loss_fn, parameters, batch).total, expected
    )
    torch.testing.assert_close(copy.deepcopy(loss_fn)(*batch).total, expected)


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


def test_a_name_too_many_is_to_be_left_out():
    losses = {"depth": torch.ones(()), "loss": torch.ones(())}
    with pytest.raises(
        ValueError, match=r"unknown: \['loss'\]. Leave out what is no task"
    ) as error:
        UncertaintyWeightedLoss({"depth": "laplace"})(losses)
    assert "None" not in str(error.value)


def test_a_task_of_a_group_is_asked_of_the_group():
    group = UncertaintyWeightedLoss({"size": "laplace"})
    loss_fn = UncertaintyWeightedLoss({"boxes": group, "depth": "laplace"})
    with pytest.raises(ValueError, match=r"Found 'boxes.size'. .* ask `loss_fn\['boxes'\]`"):
        loss_fn.freeze("boxes.size")
    loss_fn["boxes"].freeze("size")
    with pytest.raises(ValueError, match=r"Found 'dept'\.$"):
        loss_fn.freeze("dept")


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
        ([LaplaceHead()], TypeError, "a mapping from task name to head.*Found list"),
        ({"depth": "laplacian"}, ValueError, r"\['gaussian', 'laplace', 'softmax'\].*'laplacian'"),
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


@given(losses=st.lists(st.floats(0.01, 100), min_size=2, max_size=6), seed=seeds)
def test_learned_weights_do_not_depend_on_the_other_tasks(losses, seed):
    tasks = [f"task {i}" for i in range(len(losses))]
    together = UncertaintyWeightedLoss(dict.fromkeys(tasks, "laplace"))
    optimizer = torch.optim.SGD(together.param_groups(), lr=0.1, momentum=0.9)
    for _ in range(700):
        optimizer.zero_grad()
        together(torch.tensor(losses)).total.backward()
        optimizer.step()
    for task, loss in zip(tasks, losses, strict=True):
        assert together.weights()[task].item() * loss == pytest.approx(1, rel=1e-2)


def test_sequences_are_in_the_order_of_the_constructor():
    for order in itertools.permutations(["a", "b", "c"]):
        loss_fn = UncertaintyWeightedLoss(dict.fromkeys(order, "softmax"))
        tasks = loss_fn([torch.tensor(float(i)) for i in range(3)]).tasks
        assert [tasks[task].item() for task in order] == [0, 1, 2]
