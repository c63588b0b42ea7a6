"""Half precision, graphs, copies and devices: what becomes of a loss in a real training."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from tests.test_loss import scene_batch, scene_loss
from uncertainty_mtl import GaussianHead, LaplaceHead, ScaledSoftmaxHead, UncertaintyWeightedLoss

cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def to(batch, device):
    return [
        {task: None if v is None else v.detach().to(device) for task, v in part.items()}
        for part in batch
    ]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_trains_with_a_gradient_scaler(dtype):
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    loss_fn = UncertaintyWeightedLoss({"y": "gaussian"})
    groups = [{"params": model.parameters()}, *loss_fn.param_groups()]
    optimizer = torch.optim.Adam(groups, lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", enabled=dtype == torch.float16)
    x = torch.randn(256, 4)
    y = x[:, :2] + 0.1 * torch.randn(256, 2)
    for _ in range(700):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype):
            total, _ = loss_fn({"y": model(x)}, {"y": y})
        assert total.dtype == torch.float32
        scaler.scale(total).backward()
        scaler.step(optimizer)
        scaler.update()
    assert loss_fn["y"].sigma.item() == pytest.approx(0.1, rel=0.15)


def test_model_and_loss_compile_together_without_recompiling():
    class Step(nn.Module):
        def __init__(self):
            super().__init__()
            self.model, self.loss_fn = nn.Conv2d(3, 7, 1), scene_loss()

        def forward(self, x, targets, masks):
            y = self.model(x)
            predictions = {"semantic": y[:, :5], "instance": y[:, 5:], "depth": y[:, :1]}
            return self.loss_fn(predictions, targets, masks).total

    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    step = torch.compile(Step(), backend=counter, fullgraph=True)
    for seed in range(3):
        _, targets, masks = scene_batch(seed)
        if seed == 2:
            masks["instance"] = torch.zeros_like(masks["instance"])
        step(torch.randn(2, 3, 4, 4), targets, masks).backward()
    assert counter.frame_count == 1


def inductor_works() -> bool:
    try:
        return torch.compile(lambda x: x + 1)(torch.zeros(1)).item() == 1
    except Exception:  # no C++ compiler: whatever it raises, Inductor cannot be used
        return False


def test_inductor_gives_the_same():
    if not inductor_works():
        pytest.skip("Inductor needs a C++ compiler")
    loss_fn, batch = scene_loss(), scene_batch()
    expected = loss_fn(*batch).total
    compiled = torch.compile(copy.deepcopy(loss_fn), fullgraph=True)
    torch.testing.assert_close(compiled(*batch).total, expected)


# torch 2.4 says so of what its own tensors do when they are unpickled.
@pytest.mark.filterwarnings("ignore:You are using `torch.load` with `weights_only=False`")
def test_copies_and_pickles_behave_like_the_original():
    # Processes are started, and some loaders and trainers work, by pickling modules.
    loss_fn, batch = scene_loss(), scene_batch()
    expected = loss_fn(*batch).total
    for clone in (copy.deepcopy(loss_fn), pickle.loads(pickle.dumps(loss_fn))):  # noqa: S301
        torch.testing.assert_close(clone(*batch).total, expected)
        clone["depth"].log_var.data.add_(1)
    torch.testing.assert_close(loss_fn(*batch).total, expected)


@pytest.mark.parametrize("head", [GaussianHead(), LaplaceHead(), ScaledSoftmaxHead()], ids=repr)
def test_a_head_can_be_exported(head):
    if isinstance(head, ScaledSoftmaxHead):
        inputs = torch.randn(2, 3, 4), torch.randint(3, (2, 4))
    else:
        inputs = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    exported = torch.export.export(head.eval(), inputs).module()
    torch.testing.assert_close(exported(*inputs), head(*inputs))


def test_a_functional_call_differentiates_through_log_var():
    loss_fn, batch = scene_loss(), scene_batch()

    def total(parameters):
        return torch.func.functional_call(loss_fn, parameters, batch).total

    parameters = {name: p.detach().clone() for name, p in loss_fn.named_parameters()}
    gradients = torch.func.grad(total)(parameters)
    loss_fn(*batch).total.backward()
    for name, parameter in loss_fn.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad)


def test_a_loss_moves_between_devices_with_its_scales():
    loss_fn = scene_loss().to("meta")
    assert loss_fn["depth"].log_var.device.type == "meta"
    assert loss_fn["depth"].log_var.dtype == torch.float32


def test_two_forwards_may_come_before_one_backward():
    loss_fn, batch = scene_loss(), scene_batch()
    with torch.no_grad():
        loss_fn["depth"].log_var.fill_(100.0)
    (loss_fn(*batch).total + loss_fn(*batch).total).backward()
    assert all(parameter.grad.isfinite().all() for parameter in loss_fn.parameters())


def test_a_checkpoint_loads_without_running_code():
    file = io.BytesIO()
    torch.save(scene_loss().state_dict(), file)
    file.seek(0)
    scene_loss().load_state_dict(torch.load(file, weights_only=True))


@cuda
@pytest.mark.parametrize("options", [{}, {"estimator": "closed_form"}, {"constraint": "unit_sum"}])
def test_no_step_waits_for_the_device(options):
    heads = {"semantic": "softmax", "instance": "laplace", "depth": "gaussian"}
    loss_fn = UncertaintyWeightedLoss(heads, **options).cuda()
    batch = to(scene_batch(), "cuda")
    batch[0] = {task: value.requires_grad_() for task, value in batch[0].items()}
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_fn(*batch).total.backward()
        loss_fn.sigmas(), loss_fn.weights()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@cuda
def test_a_step_can_be_captured_in_a_cuda_graph():
    loss_fn, batch = scene_loss().cuda(), to(scene_batch(), "cuda")
    expected = loss_fn(*batch).total
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        loss_fn(*batch)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        total = loss_fn(*batch).total
    graph.replay()
    torch.testing.assert_close(total, expected)
