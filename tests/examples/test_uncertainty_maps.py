"""The maps of `predict --uncertainty`, against closed forms and against noise that was put in."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.model.network import SceneNet, without_noise
from examples.cityscapes.protocols import THREE_TASK
from examples.cityscapes.scene.uncertainty import predict_with_uncertainty
from examples.cityscapes.training import train as training
from examples.cityscapes.training.losses import build_loss
from tests.examples.tiny_run import TINY
from tests.examples.tiny_tree import write_tree

SIZE = TINY["size"]
CPU = torch.device("cpu")
IMAGE = np.random.default_rng(0).integers(0, 255, (*SIZE, 3)).astype(np.uint8)


@pytest.fixture
def config(tmp_path):
    return TrainConfig(data=tmp_path / "data", out=tmp_path / "run", **{**TINY, "dropout": 0.3})


def network(config, **fields):
    torch.manual_seed(0)
    return SceneNet(TrainConfig(**{**vars(config), **fields})).eval()


def doubts(model, image=IMAGE, samples=20, at_once=7):
    return predict_with_uncertainty(
        model, image, SIZE, CPU, THREE_TASK, samples=samples, at_once=at_once
    )


@torch.no_grad()
def test_epistemic_deviation_is_that_of_channels_dropped_from_a_linear_layer(config):
    model = network(config, tasks=("instance", "depth"), decoder_channels=16)
    _, found = doubts(model, samples=3000, at_once=500)
    shared = model.features(torch.from_numpy(IMAGE).permute(2, 0, 1).unsqueeze(0))
    for task, name in (("depth", "inverse_depth"), ("instance", "offset")):
        hidden, last = model.decoders[task]
        # The mask is one for all pixels, so interpolation and dropout may change places.
        features = F.interpolate(hidden(shared), SIZE, mode="bilinear")[0]
        contributions = last.weight[:, :, 0, 0, None, None] * features
        variance = contributions.square().sum(dim=(0, 1)) * 0.3 / (1 - 0.3)
        torch.testing.assert_close(
            torch.from_numpy(found[f"{name}_epistemic"]), variance.sqrt(), rtol=0.08, atol=1e-3
        )


@torch.no_grad()
def test_without_randomness_nothing_is_epistemic_and_all_entropy_is_aleatoric(config):
    model = network(config, dropout=1e-12, depth_noise="per-pixel", form="nll")
    maps, found = doubts(model)
    for name in ("class", "inverse_depth", "offset"):
        assert found[f"{name}_epistemic"].max() < 1e-3
    outputs = model(torch.from_numpy(IMAGE).permute(2, 0, 1).unsqueeze(0))
    probability = outputs["semantic"].softmax(dim=1)[0]
    entropy = -(probability * probability.log()).sum(dim=0)
    torch.testing.assert_close(torch.from_numpy(found["class_aleatoric"]), entropy)
    sigma = torch.exp(outputs["depth"][1][0, 0] / 2)
    torch.testing.assert_close(torch.from_numpy(found["inverse_depth_aleatoric"]), sigma)
    torch.testing.assert_close(maps["depth"], outputs["depth"][0][0])


@torch.no_grad()
def test_both_parts_of_the_entropy_add_up_to_that_of_the_mean_probability(config):
    model = network(config, tasks=("semantic",))
    model.decoders["semantic"][1].weight.mul_(20)
    maps, found = doubts(model)
    probability = maps["semantic"].double().numpy()
    entropy = -(probability * np.log(probability)).sum(axis=0)
    total = found["class_epistemic"] + found["class_aleatoric"]
    np.testing.assert_allclose(total, entropy, atol=1e-4)
    assert found["class_epistemic"].min() >= 0
    assert found["class_epistemic"].max() > 0.05


def test_aleatoric_is_high_where_the_noise_is(config):
    # Little dropout, as what it does to the prediction in training counts as noise too.
    fields = {"tasks": ("depth",), "depth_noise": "per-pixel", "form": "nll", "dropout": 0.02}
    model = network(config, **fields, aspp_channels=8, decoder_channels=16)
    bright = torch.zeros(1, *SIZE, dtype=torch.bool)
    bright[..., SIZE[1] // 2 :] = True
    image = torch.where(bright, 230, 20).expand(4, 3, *SIZE).to(torch.uint8)
    loss_fn, optimizer = (
        build_loss(TrainConfig(**{**vars(config), **fields})),
        torch.optim.Adam(model.parameters(), 1e-2),
    )
    generator = torch.Generator().manual_seed(0)
    sigma = torch.where(bright, 3.0, 0.2)
    masks = {"depth": torch.ones(4, *SIZE, dtype=torch.bool)}
    model.decoders["depth"][0][-1].train()  # batch norm has nothing to learn from equal images
    for _ in range(200):
        targets = {"depth": 2 + sigma * torch.randn(4, 1, *SIZE, generator=generator)}
        loss = loss_fn(model(image), targets, masks).total
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    _, found = doubts(model.eval(), image[0].permute(1, 2, 0).numpy())
    away_from_the_edge = found["inverse_depth_aleatoric"][:, 4:-4]
    quiet, noisy = away_from_the_edge[:, :8], away_from_the_edge[:, -8:]
    # sqrt(2) E|e| is what a Laplace likelihood takes Gaussian noise of 3 for: 3.4.
    assert 2.4 < np.median(noisy) < 4.4
    assert np.median(quiet) < 0.6


def test_modes_and_weights_are_as_before_afterwards(config):
    model = network(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    image = torch.from_numpy(IMAGE).permute(2, 0, 1).unsqueeze(0)
    with torch.no_grad():
        expected = without_noise(model(image))
        doubts(model)
        again = without_noise(model(image))
    assert all(torch.equal(expected[task], again[task]) for task in expected)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_deviations_are_in_pixels_of_the_image(config):
    model = network(config, depth_noise="per-pixel", form="nll")
    plain = np.full((*SIZE, 3), 99, np.uint8)
    large = np.full((2 * SIZE[0], 2 * SIZE[1], 3), 99, np.uint8)
    found = []
    for image in (plain, large):
        torch.manual_seed(1)
        found.append(doubts(model, image)[1])
    for name, small in found[0].items():
        factor = 1 if name.startswith("class") else 2
        scaled = torch.from_numpy(factor * small)[None, None]
        # The squares' root of an interpolated pair is not the interpolated root: hence a tolerance.
        expected = F.interpolate(scaled, large.shape[:2], mode="bilinear")[0, 0].numpy()
        np.testing.assert_allclose(found[1][name], expected, rtol=0.05, atol=1e-4)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


def predict(run, tree, out):
    image = next((tree / "leftImg8bit/val/town").iterdir())
    flags = ["--run", run, "--image", image, "--out", out, "--uncertainty", "--samples", 3]
    return main([str(flag) for flag in ("predict", *flags)])


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        (
            {"depth_noise": "per-pixel", "form": "nll"},
            {
                "class_aleatoric",
                "class_epistemic",
                "inverse_depth_aleatoric",
                "inverse_depth_epistemic",
                "offset_epistemic",
            },
        ),
        ({"weighting": "equal", "tasks": ("depth",)}, {"inverse_depth_epistemic"}),
    ],
    ids=["all tasks", "depth with equal weights"],
)
def test_the_command_writes_maps_and_arrays_of_what_is_trained(tree, tmp_path, fields, kinds):
    out = tmp_path / "run"
    training.train(TrainConfig(data=tree, out=out, **{**TINY, "dropout": 0.3, **fields}))
    assert predict(out, tree, tmp_path / "out") == 0
    (path,) = (tmp_path / "out").glob("*_arrays.npz")
    with np.load(path, allow_pickle=False) as arrays:
        assert {name for name in arrays if name.endswith(("_epistemic", "_aleatoric"))} == kinds
        assert all(arrays[name].shape == SIZE for name in kinds)
        assert all(np.isfinite(arrays[name]).all() for name in kinds)
    (picture,) = (tmp_path / "out").glob("*_uncertainty.png")
    with Image.open(picture) as drawn:
        assert drawn.width == 1200


def test_a_run_without_dropout_is_refused_with_the_way_out(tree, tmp_path, capsys):
    out = tmp_path / "run"
    training.train(TrainConfig(data=tree, out=out, **TINY))
    capsys.readouterr()
    assert predict(out, tree, tmp_path / "out") == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "train with --dropout" in line
    assert not (tmp_path / "out").exists()
