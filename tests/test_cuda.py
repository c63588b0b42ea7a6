"""What only a GPU can show: waiting, graphs, half precision, Inductor, the same numbers as a CPU.

`bash benchmarks/gpu.sh OUT` runs these tests on a machine with a GPU.
"""

import contextlib
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.strategies import classification_batches, regression_batches
from uncertainty_mtl import (
    GaussianHead,
    HeteroscedasticGaussianHead,
    HeteroscedasticLaplaceHead,
    HeteroscedasticSoftmaxHead,
    LaplaceHead,
    ScaledSoftmaxHead,
    UncertaintyWeightedLoss,
)

# tests/conftest.py skips tests with this mark where there is no GPU. Warnings of drivers and
# compilers, such as that of `set_sync_debug_mode` about itself, are not errors of this library.
pytestmark = [pytest.mark.cuda, pytest.mark.filterwarnings("default")]

OPTIONS = pytest.mark.parametrize(
    "options",
    [{}, {"estimator": "closed_form"}, {"constraint": "unit_sum"}],
    ids=["learned", "closed_form", "unit_sum"],
)

CLOSE = {torch.float32: (1e-4, 1e-5), torch.float64: (1e-8, 1e-10)}
"""Relative and absolute tolerance: a GPU sums and takes logarithms in another way than a CPU.

Log-variances are float32 for either, but the same on both devices.
"""


def assert_close(found, expected, dtype=torch.float32):
    rtol, atol = CLOSE[dtype]
    torch.testing.assert_close(
        found, expected, rtol=rtol, atol=atol, check_device=False, equal_nan=True
    )


def to_cuda(value):
    """Return tensors, wherever they are nested, as new leaves on the GPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().cuda().requires_grad_(value.requires_grad)
    if isinstance(value, dict):
        return {key: to_cuda(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return tuple(to_cuda(each) for each in value)
    return value


def make_loss(**options):
    heads = {
        "semantic": ScaledSoftmaxHead(ignore_index=255),
        "instance": LaplaceHead(),
        "depth": GaussianHead(),
    }
    return UncertaintyWeightedLoss(heads, **options)


def make_batch(seed):
    """Return predictions, targets and masks; what is masked is nan."""
    torch.manual_seed(seed)
    predictions = {"semantic": torch.randn(4, 5, 8, 8), "instance": torch.randn(4, 2, 8, 8)}
    predictions["depth"] = torch.randn(4, 1, 8, 8)
    labels = torch.randint(5, (4, 8, 8))
    labels[:, 0] = 255
    targets = {"semantic": labels, "instance": 3 * torch.randn(4, 2, 8, 8)}
    targets["depth"] = 0.1 * torch.randn(4, 1, 8, 8)
    masks = {"instance": torch.rand(4, 8, 8) < 0.5, "depth": torch.rand(4, 1, 8, 8) < 0.8}
    targets["depth"][~masks["depth"]] = torch.nan
    for prediction in predictions.values():
        prediction.requires_grad_()
    return predictions, targets, masks


def make_losses(seed):
    """Return a call with reduced losses."""
    torch.manual_seed(seed)
    return ({task: (torch.rand(()) + 0.1).requires_grad_() for task in make_loss()},)


def without_depth(call):
    """Return the call in which one task has no labels."""
    if len(call) == 1:
        return ({**call[0], "depth": None},)
    predictions, targets, masks = call
    return predictions, {**targets, "depth": None}, masks


def gradients(loss_fn, call):
    """Return the gradients of a call's predictions, or reduced losses, and of the sigmas."""
    found = {task: value.grad for task, value in call[0].items() if value is not None}
    return found | {name: p.grad for name, p in loss_fn.named_parameters()}


@contextlib.contextmanager
def no_waiting():
    """Raise at every operation for which the host waits for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_waiting_is_noticed():
    number = torch.ones(1, device="cuda")
    with no_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        number.item()


@OPTIONS
@pytest.mark.parametrize("make_call", [make_batch, make_losses])
def test_no_step_in_steady_state_waits_for_the_device(make_call, options):
    loss_fn, call = make_loss(**options).cuda(), to_cuda(make_call(0))
    for step in (call, call, call, without_depth(call)):
        loss_fn(*step).total.backward()
    with no_waiting():
        for step in (call, without_depth(call), call):
            losses = loss_fn(*step)
            losses.total.backward()
    for values in (losses.tasks, losses.errors, losses.counts):
        assert all(value.is_cuda for value in values.values())


@OPTIONS
def test_reading_sigmas_and_weights_does_not_wait_for_the_device(options):
    loss_fn = make_loss(**options).cuda()
    for _ in range(3):
        loss_fn(*to_cuda(make_batch(0))).total.backward()
    with no_waiting():
        sigmas, weights = loss_fn.sigmas(), loss_fn.weights()
    assert all(value.is_cuda for value in (*sigmas.values(), *weights.values()))


@OPTIONS
def test_a_whole_training_step_can_be_captured_in_a_cuda_graph(options):
    torch.manual_seed(0)
    x, steps = torch.randn(64, 6, device="cuda"), 5
    batches = [3 * torch.randn(64, 3, device="cuda") for _ in range(steps)]
    target, mask = batches[0].clone(), x[:, :3] > -1

    def build():
        torch.manual_seed(1)
        model, loss_fn = nn.Linear(6, 3).cuda(), make_loss(**options).cuda()
        groups = [{"params": model.parameters()}, *loss_fn.param_groups(lr=1e-2)]
        optimizer = torch.optim.SGD(groups, lr=1e-2)

        def train():
            output = model(x)
            predictions = {"semantic": output, "instance": output[:, :1], "depth": output[:, 1:]}
            targets = {"semantic": target.argmax(1), "instance": target[:, :1]}
            targets["depth"] = target[:, 1:]
            masks = {"instance": mask[:, :1], "depth": mask[:, 1:]}
            total = loss_fn(predictions, targets, masks).total
            total.backward()
            optimizer.step()
            return total

        return nn.ModuleList([model, loss_fn]), optimizer, train

    expected, optimizer, train = build()
    expected_totals = []
    for batch in [*batches[:3], *batches]:
        target.copy_(batch)
        optimizer.zero_grad(set_to_none=True)
        expected_totals.append(train().item())

    # As in "CUDA Graphs" of PyTorch's documentation: warm up on a side stream, then capture.
    captured, optimizer, train = build()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for batch in batches[:3]:
            target.copy_(batch)
            optimizer.zero_grad(set_to_none=True)
            train()
    torch.cuda.current_stream().wait_stream(stream)
    optimizer.zero_grad(set_to_none=True)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total = train()
    totals = []
    for batch in batches:
        target.copy_(batch)
        graph.replay()
        totals.append(total.item())

    assert totals == pytest.approx(expected_totals[3:], rel=1e-4)
    assert len(set(totals)) == steps
    found = captured.state_dict()
    for name, value in expected.state_dict().items():
        assert_close(found[name], value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"estimator": "closed_form"}], ids=str)
def test_autocast_finds_the_noise_that_was_put_in(dtype, options):
    torch.manual_seed(0)
    x = torch.randn(1024, 4, device="cuda")
    y = {"a": x[:, :1] + 0.1 * torch.randn(1024, 1, device="cuda")}
    y["b"] = 100 * torch.randn(1024, 1, device="cuda")
    model = nn.Linear(4, 2).cuda()
    loss_fn = UncertaintyWeightedLoss({"a": "gaussian", "b": "gaussian"}, **options).cuda()
    optimizer = torch.optim.Adam([{"params": model.parameters()}, *loss_fn.param_groups()], 1e-2)
    scaler = torch.amp.GradScaler("cuda", enabled=dtype == torch.float16)
    for _ in range(700):
        optimizer.zero_grad()
        with torch.autocast("cuda", dtype):
            output = model(x)
            losses = loss_fn({"a": output[:, :1], "b": output[:, 1:]}, y)
        assert output.dtype == dtype
        assert losses.total.dtype == torch.float32
        scaler.scale(losses.total).backward()
        scaler.step(optimizer)
        scaler.update()
    sigmas = loss_fn.sigmas()
    assert sigmas["a"].item() == pytest.approx(0.1, rel=0.15)
    assert sigmas["b"].item() == pytest.approx(100, rel=0.15)


@OPTIONS
def test_inductor_compiles_one_graph_that_computes_the_same(options):
    torch.compiler.reset()
    eager, call = make_loss(**options).cuda(), to_cuda(make_batch(0))
    compiled, own_call = copy.deepcopy(eager), to_cuda(make_batch(0))

    @torch.compile(fullgraph=True)
    def total_of(predictions, targets, masks):
        return compiled(predictions, targets, masks).total

    for _ in range(3):
        expected, total = eager(*call).total, total_of(*own_call)
        assert_close(total, expected)
        expected.backward()
        total.backward()
    assert_close(gradients(compiled, own_call), gradients(eager, call))
    assert_close(compiled.sigmas(), eager.sigmas())


@OPTIONS
def test_a_loss_computes_on_a_gpu_what_it_computes_on_a_cpu(options):
    on_cpu, on_gpu = make_loss(**options), make_loss(**options).cuda()
    for seed, change in enumerate([tuple, tuple, tuple, without_depth, tuple]):
        for make_call in (make_batch, make_losses):
            call = make_call(seed)
            own_call = change(to_cuda(call))
            call = change(call)
            expected, losses = on_cpu(*call), on_gpu(*own_call)
            expected.total.backward()
            losses.total.backward()
            for found, value in zip(losses, expected, strict=True):
                assert_close(found, value)
            assert_close(gradients(on_gpu, own_call), gradients(on_cpu, call))
    assert_close(on_gpu.sigmas(), on_cpu.sigmas())
    assert_close(on_gpu.weights(), on_cpu.weights())


def assert_same_on_both(head, prediction, target, mask):
    on_gpu, own_prediction = copy.deepcopy(head).cuda(), to_cuda(prediction)
    expected = head(prediction, target, mask)
    found = on_gpu(own_prediction, target.cuda(), mask.cuda())
    expected.backward()
    found.backward()
    assert_close(found, expected, expected.dtype)
    pairs = [(own_prediction, prediction)]
    if isinstance(prediction, tuple):
        pairs = list(zip(own_prediction, prediction, strict=True))
    for found_part, part in pairs:
        assert_close(found_part.grad, part.grad, part.dtype)
    if head.log_var is not None:  # which is float32
        assert_close(on_gpu.log_var.grad, head.log_var.grad)


dtypes = st.sampled_from(list(CLOSE))


@pytest.mark.parametrize("head_cls", [GaussianHead, LaplaceHead])
@pytest.mark.parametrize("per_channel", [False, True])
@settings(max_examples=20)
@given(data=st.data(), sigma=st.floats(0.1, 10), dtype=dtypes)
def test_regression_heads_agree_on_both_devices(head_cls, per_channel, data, sigma, dtype):
    prediction, target, mask = data.draw(regression_batches(dtype))
    num_channels = prediction.shape[1] if per_channel else None
    head = head_cls(init_sigma=sigma, num_channels=num_channels, full=True)
    assert_same_on_both(head, prediction.requires_grad_(), target, mask)


@pytest.mark.parametrize("exact", [False, True])
@settings(max_examples=20)
@given(data=st.data(), sigma=st.floats(0.3, 3), dtype=dtypes)
def test_softmax_heads_agree_on_both_devices(exact, data, sigma, dtype):
    logits, labels, mask = data.draw(classification_batches(dtype))
    head = ScaledSoftmaxHead(
        init_sigma=sigma,
        exact=exact,
        class_weight=[1.0 + i for i in range(logits.shape[1])],
        label_smoothing=0.1,
    )
    assert_same_on_both(head, logits.requires_grad_(), labels, mask)


@pytest.mark.parametrize("head_cls", [HeteroscedasticGaussianHead, HeteroscedasticLaplaceHead])
@settings(max_examples=20)
@given(batch=regression_batches(), log_var=st.floats(-3, 3))
def test_noise_heads_agree_on_both_devices(head_cls, batch, log_var):
    mean, target, mask = batch
    pair = mean.requires_grad_(), torch.full_like(mean, log_var).requires_grad_()
    assert_same_on_both(head_cls(full=True), pair, target, mask)


@settings(max_examples=20)
@given(batch=classification_batches())
def test_noisy_softmax_heads_agree_on_both_devices(batch):
    # Noise of 1e-6 on the logits: the samples differ between devices, their effect is not seen.
    logits, labels, mask = batch
    head = HeteroscedasticSoftmaxHead()
    on_gpu, own_logits = copy.deepcopy(head).cuda(), to_cuda(logits.requires_grad_())
    quiet = torch.full_like(logits, -30.0).detach()
    expected = head((logits, quiet), labels, mask)
    found = on_gpu((own_logits, quiet.cuda()), labels.cuda(), mask.cuda())
    expected.backward()
    found.backward()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4, check_device=False)
    torch.testing.assert_close(
        own_logits.grad, logits.grad, rtol=1e-4, atol=1e-4, check_device=False
    )


@pytest.mark.parametrize("estimator", ["learned", "closed_form"])
def test_one_process_that_talks_through_nccl_computes_what_it_does_alone(tmp_path, estimator):
    alone, joined = (
        UncertaintyWeightedLoss(
            {"a": "gaussian", "b": "laplace"}, estimator=estimator, global_counts=True
        ).cuda()
        for _ in range(2)
    )
    losses = [torch.tensor(v, device="cuda", requires_grad=True) for v in (4.0, 0.5)]
    expected = [alone({"a": losses[0], "b": losses[1]}).total for _ in range(3)]
    torch.distributed.init_process_group(
        "nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    try:
        found = [joined({"a": losses[0], "b": losses[1]}).total for _ in range(3)]
        torch.cuda.synchronize()
    finally:
        torch.distributed.destroy_process_group()
    assert_close(found, expected)
    assert_close(joined.sigmas(), alone.sigmas())
