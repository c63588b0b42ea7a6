"""The learned sigma of each regression head is what its likelihood says of noise plus residual."""

import numpy as np
import pytest

from examples.cityscapes.config import new_config
from examples.cityscapes.data.dataset import CityscapesDataset
from examples.rendered_scenes import synthesize
from tests.examples.noise_of_scenes import HEADS, SIGMA, measure, read_targets, training_files
from tests.examples.tiny_tree import offsets

pytestmark = pytest.mark.slow

SETTINGS = {
    "size": (32, 64),
    "backbone_weights": "none",
    "stages": 1,
    "aspp_channels": 8,
    "aspp_rates": (2, 4),
    "decoder_channels": 8,
    "flip": False,
    "batch_size": 4,
    "iterations": 200,
    # Sigma follows the loss within 1 / (0.2 * 0.25) = 20 steps, and averages over as many.
    "sigma_lr": 0.2,
    "device": "cpu",
    "num_workers": 0,
}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sigma")
    noise = {"disparity_noise": 1.0, "label_noise": 0.05}
    synthesize(folder / "scenes", train=24, val=1, size=SETTINGS["size"], seed=0, **noise)
    return new_config(
        {"preset": "demo", "data": folder / "scenes", "out": folder / "run"} | SETTINGS
    )


@pytest.mark.parametrize("head", HEADS)
def test_sigma_is_that_of_noise_and_residual_within_ten_percent(config, head):
    rows = {row.task: row for row in measure(config, head)}
    assert set(rows) == {"instance", "depth"}
    for row in rows.values():
        assert row.learned == pytest.approx(row.expected, rel=0.1), row
    # Without its noise the depth task would be something else altogether.
    depth = rows["depth"]
    assert depth.noise > 0.8
    assert depth.expected > 1.15 * depth.residual


def test_the_targets_that_are_read_from_the_files_are_those_of_the_trainer(config):
    dataset = CityscapesDataset(config.data, "train", config.size, config.tasks)
    files = training_files(config.data)
    assert [frame.stem for frame in dataset.frames] == [path.split("/")[1] for path in files]
    for index in range(4):
        sample, targets = dataset.read(index), read_targets(config.data, files[index], "")
        labelled = (sample.instance_ids > 0).numpy()
        vectors = offsets(sample.instance_ids, sample.centroids).numpy()
        assert np.array_equal(~np.isnan(targets["instance"]), np.stack([labelled] * 2))
        np.testing.assert_allclose(
            targets["instance"][:, labelled], vectors[:, labelled], atol=1e-4
        )
        np.testing.assert_allclose(targets["depth"][0], sample.disparity.numpy(), atol=1e-5)


@pytest.mark.parametrize(("head", "log_density"), [
    ("laplace", lambda e, s: -np.log(s * 2**0.5) - 2**0.5 * np.abs(e) / s),
    ("gaussian", lambda e, s: -np.log(s * (2 * np.pi) ** 0.5) - e**2 / (2 * s**2)),
])  # fmt: skip
def test_the_expected_sigma_has_the_highest_likelihood(head, log_density):
    error = np.random.default_rng(0).standard_t(4, 1000)
    sigmas = np.geomspace(0.1, 10, 2001)
    likelihood = [log_density(error, sigma).mean() for sigma in sigmas]
    assert SIGMA[head](error) == pytest.approx(sigmas[np.argmax(likelihood)], rel=0.005)
