"""bfloat16, compilation and recomputed activations: cheaper, and still the same network."""

import dataclasses
import functools
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import get_model

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.settings import BACKBONES, PRECISIONS
from examples.cityscapes.training import train as training
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.test_train import TINY, assert_same
from tests.examples.tiny_tree import write_tree

SMALL = TrainConfig(
    data=Path("data"),
    out=Path("run"),
    size=(32, 64),
    backbone="resnet18",
    backbone_weights="none",
    aspp_channels=8,
    decoder_channels=8,
)
CHECKPOINTED = dataclasses.replace(SMALL, checkpoint_activations=True)
BF16 = dataclasses.replace(SMALL, precision="bf16")
IMAGE = torch.arange(2 * 3 * 32 * 64).mul(37).remainder(251).view(2, 3, 32, 64).to(torch.uint8)


def step(config):
    """Return a network after one backward pass, its outputs, and the bytes kept in between."""
    model = initial_model(config, None, None).to(memory_format=torch.channels_last).train()
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(IMAGE)
    sum(output.square().mean() for output in outputs.values()).backward()
    return model, outputs, sum(kept.values())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_recomputed_activations_give_the_same_bits_in_less_memory(precision):
    configs = (dataclasses.replace(c, precision=precision) for c in (SMALL, CHECKPOINTED))
    (plain, plain_outputs, plain_bytes), (model, outputs, kept_bytes) = map(step, configs)
    assert_same(outputs, plain_outputs)
    gradients = [{n: p.grad for n, p in m.named_parameters()} for m in (model, plain)]
    assert_same(*gradients)
    weights = sum(p.nbytes for p in plain.parameters())
    assert kept_bytes < weights + 0.5 * (plain_bytes - weights)


def test_recomputing_counts_no_batch_twice():
    plain, model = step(SMALL)[0], step(CHECKPOINTED)[0]
    assert_same(dict(model.state_dict()), dict(plain.state_dict()))
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert {norm.num_batches_tracked.item() for norm in norms} == {1}


def test_frozen_batch_norm_is_recomputed_frozen():
    plain, model = (initial_model(c, None, None).eval() for c in (SMALL, CHECKPOINTED))
    before = {n: b.clone() for n, b in model.named_buffers()}
    for network in (plain, model):
        sum(output.square().mean() for output in network(IMAGE).values()).backward()
    assert_same(dict(model.named_buffers()), before)
    assert_same(*({n: p.grad for n, p in m.named_parameters()} for m in (model, plain)))


def test_bfloat16_reaches_every_convolution_and_no_weight_output_or_gradient():
    model = SceneNet(BF16).train()
    seen = set()
    for layer in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        layer.register_forward_hook(lambda _, __, output: seen.add(output.dtype))
    outputs = model(IMAGE)
    assert seen == {torch.bfloat16}
    assert {output.dtype for output in outputs.values()} == {torch.float32}
    sum(output.square().mean() for output in outputs.values()).backward()
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}


def test_bfloat16_goes_the_way_of_float32():
    # Batch norm frozen: its statistics magnify what is rounded in a network that has not learned.
    exact, rounded = (initial_model(c, None, None).eval() for c in (SMALL, BF16))
    outputs, gradients = [], []
    for network in (exact, rounded):
        outputs.append(network(IMAGE))
        sum(output.square().mean() for output in outputs[-1].values()).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    for task, output in outputs[0].items():
        error = (outputs[1][task] - output).norm() / output.norm()
        assert 0 < error < 0.02, task
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


def trained(tree, out, **fields):
    config = TrainConfig(data=tree, out=out, **{**TINY, "iterations": 3, **fields})
    assert training.train(config) == 3
    assert load_config(out) == config
    return config


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_a_run_with_recomputed_activations_ends_bit_identical(tree, tmp_path, dropout):
    plain = trained(tree, tmp_path / "plain", dropout=dropout)
    checkpointed = trained(tree, tmp_path / "l", dropout=dropout, checkpoint_activations=True)
    assert_same(*(read_checkpoint(c.out / "last.pt") for c in (plain, checkpointed)))


def test_a_compiled_run_leaves_the_checkpoint_of_a_plain_one(tree, tmp_path, monkeypatch):
    # Without code generation, which takes a minute on one core: what is compiled is the same.
    compiled = []

    def by_tracing(function, compile_=torch.compile, **options):
        compiled.append(function)
        return compile_(function, backend="eager", **options)

    plain = trained(tree, tmp_path / "plain")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", by_tracing)
        config = trained(tree, tmp_path / "compiled", compile=True)
    assert any(getattr(function, "__self__", None).__class__ is SceneNet for function in compiled)
    saved = [read_checkpoint(c.out / "last.pt")["model"] for c in (plain, config)]
    assert saved[0].keys() == saved[1].keys()
    for name, tensor in saved[0].items():
        torch.testing.assert_close(saved[1][name], tensor, rtol=1e-4, atol=1e-5)
    load_trained(config)


def test_without_a_compiler_a_run_is_refused_before_it_starts(tree, tmp_path, monkeypatch):
    def no_compiler(function, **options):
        def call(*args):
            raise RuntimeError("no working C++ compiler found\nwith a long story below")

        return call

    monkeypatch.setattr(torch, "compile", no_compiler)
    with pytest.raises(InputError) as caught:
        trained(tree, tmp_path / "run", compile=True)
    story = "--compile: torch.compile does not work here (no working C++ compiler found)"
    assert str(caught.value) == story
    assert not (tmp_path / "run").exists()


def test_the_flags_arrive_in_the_recorded_configuration(tree, tmp_path):
    flags = [
        *("--precision", "bf16", "--checkpoint-activations", "--no-flip"),
        *("--scale", "1,1.5", "--crop", "16x16", "--size", "16x32", "--backbone", "resnet18"),
        *("--backbone-weights", "none", "--iterations", "1", "--batch-size", "2"),
        *("--num-workers", "0", "--device", "cpu"),
    ]
    assert main(["train", "--data", str(tree), "--out", str(tmp_path / "run"), *flags]) == 0
    config = load_config(tmp_path / "run")
    assert (config.precision, config.checkpoint_activations, config.compile) == (
        "bf16",
        True,
        False,
    )
    assert (config.flip, config.scale, config.crop) == (False, (1.0, 1.5), (16, 16))


@pytest.mark.parametrize(
    ("fields", "flag"),
    [
        ({"precision": "fp16"}, "--precision"),
        ({"compile": True, "checkpoint_activations": True}, "--compile"),
    ],
)
def test_what_cannot_be_computed_is_refused_by_its_flag(fields, flag):
    with pytest.raises(InputError, match=f"^{flag}: "):
        dataclasses.replace(SMALL, **fields)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_is_the_trunk_of_its_resnet_at_stride_eight(backbone):
    with torch.device("meta"):
        theirs = get_model(backbone, weights=None)
        model = SceneNet(dataclasses.replace(SMALL, backbone=backbone))
        features = model.trunk(torch.zeros(1, 3, 64, 128))
    count = functools.partial(sum, start=0)
    expected = count(p.numel() for n, p in theirs.named_parameters() if not n.startswith("fc."))
    assert count(p.numel() for p in model.trunk.parameters()) == expected
    assert features.shape == (1, theirs.fc.in_features, 8, 16)
