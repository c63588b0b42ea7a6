"""Label and disparity noise: of the amount that was asked for, where it should be, and recorded."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

from examples.cityscapes.labels import CATEGORY_OF, TRAIN_ID_FROM_LABEL_ID
from examples.common.errors import InputError
from examples.rendered_scenes import sample_scene, synthesize
from examples.rendered_scenes.disparity import encode
from examples.rendered_scenes.noise import OUTLIERS, STEP, noisy_disparity, noisy_labels

SIZE = (64, 128)
SCENES = [sample_scene("train", index, size=SIZE, seed=9) for index in range(6)]

seeds = st.integers(0, 2**32)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    root = tmp_path_factory.mktemp("noise")
    counts = {"train": 6, "val": 2, "size": SIZE, "seed": 2}
    synthesize(root / "clean", **counts)
    synthesize(root / "noisy", **counts, label_noise=0.05, disparity_noise=0.5)
    return root / "clean", root / "noisy"


def _files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


# Labels


@settings(max_examples=25)
@given(st.sampled_from(SCENES), st.floats(0, 0.4), seeds)
def test_the_share_of_wrong_labels_is_exact_and_both_files_agree(scene, share, seed):
    labels, instances = noisy_labels(
        scene.label_ids, scene.instance_ids, share, np.random.default_rng(seed)
    )
    assert (labels != scene.label_ids).sum() == round(share * labels.size)
    assert labels.dtype == np.uint8
    assert instances.dtype == np.uint16
    rebuilt = np.where(instances >= 1000, instances // 1000, instances)
    assert np.array_equal(rebuilt, labels)


def test_half_of_the_errors_are_at_outlines_and_the_rest_within_a_category():
    at_outlines, total = 0, 0
    for seed, scene in enumerate(SCENES):
        rng = np.random.default_rng(seed)
        labels, _ = noisy_labels(scene.label_ids, scene.instance_ids, 0.04, rng)
        wrong = labels != scene.label_ids
        train_ids = TRAIN_ID_FROM_LABEL_ID[np.stack([labels, scene.label_ids])]
        noisy_category, category = CATEGORY_OF[train_ids]
        low, high = (
            f(scene.label_ids, size=13) for f in (ndimage.minimum_filter, ndimage.maximum_filter)
        )
        assert not (wrong & (noisy_category != category) & (low == high)).any()
        at_outlines += (wrong & (noisy_category != category)).sum()
        total += wrong.sum()
    assert 0.2 < at_outlines / total < 0.6


def test_a_confused_thing_gets_a_number_of_its_own():
    confused = 0
    for seed, scene in enumerate(SCENES):
        rng = np.random.default_rng(seed)
        _, instances = noisy_labels(scene.label_ids, scene.instance_ids, 0.2, rng)
        new = np.setdiff1d(instances[instances >= 1000], scene.instance_ids)
        for number in new:
            true_ids, pixels = np.unique(
                scene.instance_ids[instances == number], return_counts=True
            )
            # Outlines that were moved before bring in a few pixels of the neighbours.
            assert pixels.max() > 0.5 * pixels.sum()
            assert true_ids[pixels.argmax()] // 1000 != number // 1000
        confused += len(new)
    assert confused > 10


# Disparities


def _plane(value, shape=(300, 400)):
    return encode(np.full(shape, value), np.ones(shape, bool))


@pytest.mark.parametrize("sigma", [0.1, 0.5, 1.5])
def test_the_noise_of_a_plane_is_gaussian_but_for_the_outliers(sigma):
    raw = noisy_disparity(_plane(40.0), sigma, np.random.default_rng(0))
    assert (raw > 0).all()
    error = (raw - 1) / 256 - 40.0
    # The outliers are uniform from 0 to 40.
    usual = np.abs(error) < 5 * sigma + STEP
    assert 1 - usual.mean() == pytest.approx(OUTLIERS * sigma, rel=0.35)
    assert error[usual].std() == pytest.approx(np.hypot(sigma, STEP / 12**0.5), rel=0.02)
    assert abs(error[usual].mean()) < 0.02 * sigma + 0.002
    assert not (error % STEP).any()


@settings(max_examples=15)
@given(st.sampled_from(SCENES), st.floats(0.01, 3), seeds)
def test_noise_never_makes_an_invalid_disparity_valid_nor_a_valid_one_negative(scene, sigma, seed):
    raw = noisy_disparity(scene.disparity, sigma, np.random.default_rng(seed))
    assert not ((raw > 0) & (scene.disparity == 0)).any()
    assert raw.dtype == np.uint16
    assert raw.max() < 60000


def test_occlusions_grow_to_the_left_by_the_mean_length_that_is_stated():
    raw = _plane(10.0, (2000, 100))
    raw[:, 60:70] = 0
    grown = noisy_disparity(raw, 1.0, np.random.default_rng(0)) == 0
    assert not grown[:, 70:].any()
    length = grown[:, :60].sum(1)
    for row, count in enumerate(length[:200]):
        assert grown[row, 60 - count : 70].all()
    # The floor of an exponential of mean 3 is geometric, of mean 1 / (e^(1/3) - 1).
    assert length.mean() == pytest.approx(1 / (np.exp(1 / 3) - 1), rel=0.1)


def test_no_noise_changes_nothing():
    scene, rng = SCENES[0], np.random.default_rng(0)
    assert noisy_disparity(scene.disparity, 0.0, rng) is scene.disparity
    labels, instances = noisy_labels(scene.label_ids, scene.instance_ids, 0.0, rng)
    assert labels is scene.label_ids
    assert instances is scene.instance_ids


# Files


def test_noise_is_in_training_labels_alone_and_the_clean_ones_are_kept(trees):
    clean, noisy = map(_files, trees)
    for name, content in clean.items():
        package, split, rest = name.split("/", 2)
        if package in ("gtFine", "disparity") and split == "train":
            assert noisy.pop(f"{package}_clean/train/{rest}") == content
            assert noisy.pop(name) != content
        else:
            assert noisy.pop(name) == content
    assert set(noisy) == {"noise.json"}


def test_the_amount_of_one_noise_does_not_change_the_other(trees, tmp_path):
    counts = {"train": 2, "val": 1, "size": SIZE, "seed": 2}
    synthesize(tmp_path / "labels", **counts, label_noise=0.05)
    synthesize(tmp_path / "depths", **counts, disparity_noise=0.5)
    both, labels, depths = map(_files, (trees[1], tmp_path / "labels", tmp_path / "depths"))
    assert not any(name.startswith("disparity_clean") for name in labels)
    for part, package in ((labels, "gtFine/train"), (depths, "disparity/train")):
        names = [name for name in part if name.startswith(package)]
        assert names
        assert all(part[name] == both[name] for name in names)


def _read(root, package, kind):
    paths = sorted((root / package / "train").glob(f"*/*_{kind}.png"))
    return np.stack([np.asarray(Image.open(path)) for path in paths]).astype(float)


def _offsets(instances):
    """Vectors to the centres, (N, 2, H, W), by scipy."""
    axes = np.meshgrid(np.arange(SIZE[1]), np.arange(SIZE[0]))
    vectors = []
    for image in instances:
        ids, member = np.unique(image, return_inverse=True)
        centres = [np.array(ndimage.mean(axis, image, ids)) for axis in axes]
        vectors.append([c[member.reshape(SIZE)] - a for c, a in zip(centres, axes, strict=True)])
    return np.array(vectors)


def test_the_record_says_how_much_noise_the_files_hold(trees):
    root = trees[1]
    record = json.loads((root / "noise.json").read_text())
    assert (record["label_noise"], record["disparity_noise"]) == (0.05, 0.5)
    assert record["splits"] == ["train"]
    found = record["measured"]

    truth, labels = (_read(root, f"gtFine{s}", "labelIds") for s in ("_clean", ""))
    assert found["semantic"]["wrong_share"] == pytest.approx((truth != labels).mean())
    assert found["semantic"]["wrong_share"] == pytest.approx(0.05, abs=1e-4)

    before, after = (_read(root, f"disparity{s}", "disparity") for s in ("_clean", ""))
    error = ((after - before) / 256)[(after > 0) & (before > 0)]
    assert found["depth"]["mean_absolute_px"] == pytest.approx(np.abs(error).mean())
    assert found["depth"]["root_mean_square_px"] == pytest.approx(np.sqrt((error**2).mean()))
    assert found["depth"]["valid_share"] == pytest.approx((after > 0).mean())
    assert found["depth"]["valid_share_clean"] == pytest.approx((before > 0).mean())

    before, after = (_read(root, f"gtFine{s}", "instanceIds") for s in ("_clean", ""))
    error = _offsets(after) - _offsets(before)
    error = np.moveaxis(error, 1, 0)[:, (before >= 1000) & (after >= 1000)]
    assert found["instance"]["mean_absolute_px"] == pytest.approx(np.abs(error).mean())
    assert found["instance"]["root_mean_square_px"] == pytest.approx(np.sqrt((error**2).mean()))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"label_noise": 0.6}, r"--label-noise should be from 0 to 0\.5.*Found 0\.6"),
        ({"label_noise": -0.1}, r"--label-noise should be from 0 to 0\.5.*Found -0\.1"),
        ({"disparity_noise": -1.0}, r"--disparity-noise should be from 0 to 20.*Found -1"),
        ({"disparity_noise": float("nan")}, r"--disparity-noise should be from 0.*Found nan"),
    ],
)
def test_noise_that_makes_no_sense_is_refused(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        synthesize(tmp_path / "out", train=1, val=1, size=SIZE, seed=0, **wrong)
    assert not any(tmp_path.iterdir())
