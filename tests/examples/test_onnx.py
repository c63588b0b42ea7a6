"""An exported network is the trained one: its outputs, its pictures, and what it refuses."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig, new_config
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.labels import CLASS_NAMES
from examples.cityscapes.scene.onnx_export import largest_difference
from examples.cityscapes.scene.onnx_network import OnnxNetwork
from examples.cityscapes.training.train import train
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY
from tests.examples.tiny_tree import write_tree

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
pytest.importorskip("onnxscript")
pytestmark = pytest.mark.skipif(
    tuple(map(int, torch.__version__.split(".")[:2])) < (2, 7), reason="export needs torch 2.7"
)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A finished run, with dropout and noise for every pixel."""
    tree = write_tree(tmp_path_factory.mktemp("data"))
    out = tmp_path_factory.mktemp("runs") / "run"
    settings = {**TINY, "dropout": 0.2, "depth_noise": "per-pixel", "form": "nll"}
    config = TrainConfig(data=tree, out=out, **{**settings, "iterations": 30})
    train(config)
    return config


@pytest.fixture(scope="module")
def file(config, tmp_path_factory):
    """The network of that run."""
    out = tmp_path_factory.mktemp("exported") / "scenes.onnx"
    flags = ["--clustering", "hdbscan", "--min-area", "0.1"]
    assert status("export", "--run", config.out, "--out", out, *flags) == 0
    return out


@pytest.fixture(scope="module")
def session(file):
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def status(*arguments):
    """Run a command as the shell would see it."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def complaint(capsys, *arguments):
    """Return the one line of a command that is refused."""
    capsys.readouterr()
    assert status(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("shape", [(1, 16, 32), (2, 16, 32), (5, 16, 32), (2, 24, 20), (1, 33, 65)])
@torch.no_grad()
def test_every_output_is_that_of_pytorch_for_any_batch_and_size(config, session, shape):
    batch, height, width = shape
    rng = np.random.default_rng(batch * width)
    image = rng.integers(0, 256, (batch, 3, height, width)).astype(np.uint8)
    expected = load_trained(config).eval()(torch.from_numpy(image))
    expected["depth"], expected["depth_log_var"] = expected["depth"]
    # By name, and in another order than that of the file.
    names = ["depth_log_var", "depth", "instance", "semantic"]
    found = session.run(names, {"image": image.astype(np.float32) / 255})
    for name, values in zip(names, found, strict=True):
        assert values.shape[-2:] == (height, width)
        np.testing.assert_allclose(values, expected[name].numpy(), atol=1e-4, rtol=0)


def test_the_file_says_what_goes_in_and_what_comes_out(session, config):
    (image,) = session.get_inputs()
    assert (image.name, image.type) == ("image", "tensor(float)")
    assert image.shape == ["batch", 3, "height", "width"]
    shapes = {output.name: output.shape for output in session.get_outputs()}
    assert shapes == {
        "semantic": ["batch", 19, "height", "width"],
        "instance": ["batch", 2, "height", "width"],
        "depth": ["batch", 1, "height", "width"],
        "depth_log_var": ["batch", 1, "height", "width"],
    }
    metadata = session.get_modelmeta()
    assert "RGB from 0 to 1" in metadata.description
    described = json.loads(metadata.custom_metadata_map["scene_network"])
    assert tuple(described["classes"]) == CLASS_NAMES
    assert tuple(described["size"]) == config.size
    assert described["grouping"]["clustering"] == "hdbscan"


def test_the_exported_network_gives_the_pictures_of_the_trained_one_without_its_run(
    config, file, tmp_path
):
    (images := tmp_path / "images").mkdir()
    for index, shape in enumerate([(16, 32), (32, 64), (40, 40), (50, 21)]):
        source = sorted(config.data.rglob("leftImg8bit/val/town/*.png"))[index % 2]
        with Image.open(source) as image:
            image.resize(shape[::-1]).save(images / f"{index}.png")
    by_run, by_file = tmp_path / "by_run", tmp_path / "by_file"
    flags = ["--clustering", "hdbscan", "--min-area", "0.1"]
    common = ["--image", images, "--device", "cpu", "--batch-size", "2", "--out"]
    assert status("predict", "--run", config.out, *flags, *common, by_run) == 0
    moved = config.out.rename(config.out.with_name("moved"))
    try:
        assert status("predict", "--model", file, *common, by_file) == 0
    finally:
        moved.rename(config.out)
    names = sorted(path.name for path in by_run.iterdir() if path.suffix in (".png", ".npz"))
    assert len(names) == 4 * 3 + 1
    assert sum(instances_in(by_run / name) for name in names if name.endswith(".npz")) > 4
    for name in names:
        if name.endswith(".npz"):
            assert_same_arrays(by_run / name, by_file / name)
            continue
        with Image.open(by_run / name) as one, Image.open(by_file / name) as other:
            difference = np.abs(np.asarray(one).astype(int) - np.asarray(other))
        assert np.mean(difference.max(axis=-1) > 1) < 0.001, name


def instances_in(path):
    """Return how many instances were found in an image."""
    with np.load(path) as arrays:
        return int(arrays["instances"].max())


def assert_same_arrays(one, other):
    """Compare what was predicted; a tie between two classes may fall on either side."""
    with np.load(one) as expected, np.load(other) as found:
        assert sorted(expected) == sorted(found)
        assert "inverse_depth_aleatoric" in expected
        for name in expected:
            if expected[name].dtype.kind == "f":
                np.testing.assert_allclose(found[name], expected[name], atol=1e-4)
            else:
                assert np.mean(found[name] != expected[name]) < 0.001, name


def test_the_program_on_the_page_runs_and_gives_what_its_comment_says(
    config, file, tmp_path, monkeypatch
):
    page = Path(__file__).parents[2] / "docs/examples/cityscapes_prediction.md"
    (code,) = re.findall(r"^```{code-block} python\n(.*?)^```", page.read_text(), re.M | re.S)
    shutil.copy(file, tmp_path / "scenes.onnx")
    shutil.copy(next(config.data.rglob("leftImg8bit/val/town/*.png")), tmp_path / "street.png")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)  # noqa: S102
    assert names["logits"].shape == (1, 19, 128, 256)
    assert names["offsets"].shape == (1, 2, 128, 256)
    assert names["disparity"].shape == (1, 1, 128, 256)
    assert names["classes"].shape == (128, 256)


def test_a_repeated_command_predicts_only_what_the_file_has_not_predicted(
    config, file, tmp_path, capsys
):
    command = ["predict", "--model", file, "--image", config.data / "leftImg8bit/val/town"]
    command += ["--out", tmp_path / "out", "--write", "panels"]
    for before in ("", ", 2 of them by an earlier command"):
        assert status(*command) == 0
        assert f"2 images predicted in {tmp_path / 'out'}{before}\n" in capsys.readouterr().out


def test_a_two_task_run_that_saved_memory_and_digits_is_exported_in_float32(
    config, tmp_path, capsys
):
    settings = {"protocol": "two-task", "precision": "bf16", "checkpoint_activations": True}
    two = new_config({**TINY, "data": config.data, "out": tmp_path / "two", **settings})
    train(two)
    out = tmp_path / "new/two.onnx"
    assert status("export", "--run", two.out, "--out", out) == 0
    assert f"{out}: its outputs differ from PyTorch's by at most" in capsys.readouterr().out
    image = np.random.default_rng(0).integers(0, 256, (2, 3, 16, 32)).astype(np.uint8)
    session = onnxruntime.InferenceSession(out, providers=["CPUExecutionProvider"])
    found = session.run(["semantic", "depth"], {"image": image.astype(np.float32) / 255})
    exact = load_trained(dataclasses.replace(two, precision="float32")).eval()
    with torch.no_grad():
        expected = exact(torch.from_numpy(image))
    assert found[0].shape[1] == 7
    for values, task in zip(found, ("semantic", "depth"), strict=True):
        np.testing.assert_allclose(values, expected[task].numpy(), atol=1e-4, rtol=0)
    common = ["--image", config.data, "--device", "cpu", "--out"]
    assert status("predict", "--run", two.out, *common, tmp_path / "by_run") == 0
    assert status("predict", "--model", out, *common, tmp_path / "by_file") == 0
    names = sorted(path.name for path in (tmp_path / "by_run").rglob("*_arrays.npz"))
    assert names
    assert names == sorted(path.name for path in (tmp_path / "by_file").rglob("*_arrays.npz"))
    for path in (tmp_path / "by_run").rglob("*_arrays.npz"):
        other = tmp_path / "by_file" / path.relative_to(tmp_path / "by_run")
        with np.load(path) as one, np.load(other) as two_arrays:
            assert sorted(one) == sorted(two_arrays) == ["classes", "image", "inverse_depth"]
            # The run still computes in bfloat16, the exported network in float32.
            assert np.mean(one["classes"] != two_arrays["classes"]) < 0.05
            scale = np.abs(one["inverse_depth"]).max()
            assert np.abs(one["inverse_depth"] - two_arrays["inverse_depth"]).max() < 0.02 * scale


@pytest.mark.parametrize("output", ["semantic", "instance", "depth", "depth_log_var"])
def test_an_output_that_differs_from_pytorch_is_named(config, file, monkeypatch, output):
    model, network = load_trained(config).eval(), OnnxNetwork(file.read_bytes())
    assert largest_difference(model, network, config.size) < 1e-4
    right = OnnxNetwork.run

    def wrong(self, image):
        maps = right(self, image)
        maps[output][-1, -1, -1, -1] += 2e-4 * (1 + maps[output].abs().max())
        return maps

    monkeypatch.setattr(OnnxNetwork, "run", wrong)
    with pytest.raises(InputError, match=f"exported output {output} differs from PyTorch's"):
        largest_difference(model, network, config.size)


@pytest.mark.parametrize("command", ["export", "predict"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    config, file, tmp_path, capsys, monkeypatch, command
):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    out = ["--out", tmp_path / "out"]
    flags = {
        "export": ["--run", config.out, *out],
        "predict": ["--model", file, "--image", config.data, *out],
    }
    line = complaint(capsys, command, *flags[command])
    assert "pip install onnx" in line
    assert not (tmp_path / "out").exists()


def flipped_classes(content):
    """Return a file whose classes have another name."""
    return content.replace(b'\\"road\\"', b'\\"toad\\"').replace(b'"road"', b'"toad"')


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda content: b"no network", "is not a readable ONNX file"),
        (lambda content: content[:1000], "is not a readable ONNX file"),
        (lambda content: content.replace(b"scene_network", b"other_network"), "does not describe"),
        (flipped_classes, "`classes` should be the classes of a protocol"),
    ],
    ids=["text", "half", "foreign", "other classes"],
)
def test_a_file_that_export_has_not_written_is_refused(
    config, file, tmp_path, capsys, spoil, message
):
    path = tmp_path / "other.onnx"
    path.write_bytes(spoil(file.read_bytes()))
    line = complaint(
        capsys, "predict", "--model", path, "--image", config.data, "--out", tmp_path / "out"
    )
    assert message in line
    assert line.endswith("; give a file that `export` has written")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--uncertainty"], "--uncertainty: an exported network has no dropout"),
        (["--checkpoint", "best"], "--checkpoint: an exported network has only one"),
        (["--run", "run"], "not allowed with argument"),
        (["--model", "none.onnx"], "--model: none.onnx not found"),
    ],
)
def test_what_an_exported_network_cannot_do_is_said(config, file, tmp_path, capsys, flags, message):
    command = ["predict", "--model", file, "--image", config.data, "--out", tmp_path / "out"]
    assert message in complaint(capsys, *command, *flags)


def test_a_run_that_cannot_be_exported_is_refused(config, tmp_path, capsys):
    assert "is a folder" in complaint(capsys, "export", "--run", config.out, "--out", tmp_path)
    shutil.copytree(config.out, other := tmp_path / "run")
    (other / "last.pt").unlink()
    line = complaint(capsys, "export", "--run", other, "--out", tmp_path / "scenes.onnx")
    assert "holds no trained network yet" in line
    assert not (tmp_path / "scenes.onnx").exists()
