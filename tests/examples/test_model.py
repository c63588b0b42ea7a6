"""The network's sizes, strides and dilations."""

import dataclasses
from http.client import IncompleteRead
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18, resnet50

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.model.network import SceneNet, SpatialPyramid, Trunk, decoder
from examples.cityscapes.model.start import backbone_state, initial_model
from examples.common.errors import InputError
from tests.examples.tiny_tree import write_tree

PAPER = TrainConfig(data=Path("data"), out=Path("run"))
SMALL = dataclasses.replace(
    PAPER, backbone="resnet18", backbone_weights="none", aspp_channels=8, decoder_channels=8
)


def num_parameters(module):
    return sum(p.numel() for p in module.parameters())


def test_the_parts_have_as_many_parameters_as_the_papers():
    with torch.device("meta"):
        model = SceneNet(PAPER)
    assert num_parameters(model.trunk) == 42_500_160
    assert num_parameters(model.aspp) == 15_206_912
    last_layers = {"semantic": 257 * 19, "instance": 257 * 2, "depth": 257}
    for task, last_layer in last_layers.items():
        assert num_parameters(model.decoders[task]) == 2_949_632 + last_layer
    assert model.aspp.out_channels == 1280


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("output_stride", [4, 8, 16])
@torch.no_grad()
def test_dilated_features_subsampled_are_the_strided_ones(backbone, output_stride):
    torch.manual_seed(0)
    dilated = Trunk(backbone, 4, output_stride).double().eval()
    strided = Trunk(backbone, 4, 32).double().eval()
    strided.load_state_dict(dilated.state_dict())
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    step = 32 // output_stride
    features = dilated(image)
    assert features.shape[-2:] == (64 // output_stride, 96 // output_stride)
    torch.testing.assert_close(features[..., ::step, ::step], strided(image))


@torch.no_grad()
def test_stride_eight_is_torchvisions_own_where_that_has_it():
    torch.manual_seed(0)
    theirs = resnet50(weights=None, replace_stride_with_dilation=[False, True, True]).eval()
    ours = Trunk("resnet50", 4, 8).eval()
    ours.load_resnet(theirs.state_dict())
    image = torch.randn(1, 3, 32, 64)
    features = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image)))))
    features = theirs.layer4(theirs.layer3(theirs.layer2(features)))
    torch.testing.assert_close(ours(image), features)


def test_every_block_of_the_last_two_stages_is_dilated_not_only_the_first():
    trunk = Trunk("resnet101", 4, 8)
    dilations = [[block.conv2.dilation[0] for block in stage] for stage in trunk.layers]
    assert dilations[:2] == [[1] * 3, [1] * 4]
    assert dilations[2] == [1] + [2] * 22
    assert dilations[3] == [2, 4, 4]


@pytest.mark.parametrize("tasks", [("semantic",), ("depth", "instance"), PAPER.tasks])
def test_any_subset_of_tasks_has_its_decoders_and_no_other(tasks):
    model = SceneNet(dataclasses.replace(SMALL, tasks=tasks))
    outputs = model(torch.zeros(2, 3, 32, 64, dtype=torch.uint8))
    channels = {"semantic": 19, "instance": 2, "depth": 1}
    assert {t: tuple(o.shape) for t, o in outputs.items()} == {
        t: (2, channels[t], 32, 64) for t in tasks
    }


def test_every_parameter_gets_a_gradient():
    model = SceneNet(SMALL)
    image = torch.randint(0, 255, (2, 3, 32, 64), dtype=torch.uint8)
    sum(output.square().sum() for output in model(image).values()).backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_the_demo_network_works_at_a_quarter_of_the_resolution():
    model = SceneNet(dataclasses.replace(SMALL, stages=2, output_stride=4))
    assert model.trunk(torch.zeros(1, 3, 64, 128)).shape == (1, 128, 16, 32)


def test_the_pyramid_sees_the_whole_image_through_its_pooled_branch():
    torch.manual_seed(0)
    pyramid = SpatialPyramid(4, 3, (1, 2)).eval()
    features = torch.randn(1, 4, 20, 20, requires_grad=True)
    shared = pyramid(features)
    assert shared.shape == (1, 12, 20, 20)
    shared[0, 9:, 0, 0].sum().backward()
    assert (features.grad[0].abs().sum(0) > 0).float().mean() > 0.9
    assert decoder(12, 8, 2)(shared.detach()).shape == (1, 2, 20, 20)


def test_the_seed_decides_the_initial_weights_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same = _weights(SMALL), _weights(SMALL)
    other = _weights(dataclasses.replace(SMALL, seed=1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def _weights(config):
    config = dataclasses.replace(config, tasks=("semantic",))
    return initial_model(config, None, None).trunk.stem[0].weight


def test_a_file_of_resnet_weights_fills_the_trunk(tmp_path):
    resnet = resnet18(weights=None)
    torch.save(resnet.state_dict(), tmp_path / "weights.pt")
    _, state = backbone_state("resnet18", str(tmp_path / "weights.pt"))
    model = initial_model(SMALL, None, state)
    torch.testing.assert_close(model.trunk.layers[3][1].conv2.weight, resnet.layer4[1].conv2.weight)


def test_weights_of_another_resnet_or_no_weights_at_all_are_refused_by_name(tmp_path):
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "weights.pt")
    _, state = backbone_state("resnet50", str(tmp_path / "weights.pt"))
    config = dataclasses.replace(SMALL, backbone="resnet50", backbone_weights="weights.pt")
    with pytest.raises(InputError, match=r"--backbone-weights: weights\.pt does not fit resnet50"):
        initial_model(config, None, state)
    (tmp_path / "noise.pt").write_bytes(b"noise")
    with pytest.raises(InputError, match=r"noise\.pt: not a readable checkpoint"):
        backbone_state("resnet18", str(tmp_path / "noise.pt"))
    with pytest.raises(InputError, match=r"none\.pt: no such file"):
        backbone_state("resnet18", str(tmp_path / "none.pt"))


@pytest.fixture(params=[OSError, IncompleteRead], ids=lambda error: error.__name__)
def _offline(monkeypatch, request):
    def fail(*args, **kwargs):
        raise request.param("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)


@pytest.mark.usefixtures("_offline")
def test_imagenet_asked_for_by_name_is_refused_without_a_network(tmp_path, capsys):
    paths = ["--data", write_tree(tmp_path / "data"), "--out", tmp_path / "run"]
    flags = ["--backbone", "resnet18", "--backbone-weights", "imagenet", "--size", "16x32"]
    flags += ["--batch-size", "2"]
    assert main([str(argument) for argument in ("train", *paths, *flags)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: --backbone-weights imagenet: no ImageNet weights for")
    assert printed.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("_offline")
def test_without_a_network_the_default_warns_in_one_line_and_is_none(capsys):
    assert backbone_state("resnet18", "auto") == ("none", None)
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "no ImageNet weights for resnet18 (" in printed
