"""RS-Net: volumes, reader, network, losses and metrics by hand-made cases, and the command line."""

import csv
import itertools
import json
import math
import shutil

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import f1_score
from torch import nn

from examples.brain_tumour.__main__ import main
from examples.brain_tumour.brain_config import MODALITIES, BrainConfig, load_config, to_json
from examples.brain_tumour.brain_losses import build_loss
from examples.brain_tumour.brain_metrics import dice, masked_mse, region_dice
from examples.brain_tumour.brain_training import build_optimizer, check_finite
from examples.brain_tumour.brats import find_cases, read_case
from examples.brain_tumour.compare import PUBLISHED
from examples.brain_tumour.data import open_split, to_batch, training_order
from examples.brain_tumour.generated import generate
from examples.brain_tumour.model import RSNet, count_parameters
from examples.brain_tumour.volumes import crop_or_pad, prepare
from examples.common.checkpoint import read_checkpoint, save_checkpoint
from examples.common.errors import InputError, NonFiniteLossError
from uncertainty_mtl import MultiTaskLoss

SIZE = (16, 16, 16)
TINY = [
    *("--size", "16x16x16", "--base-width", "1", "--cases", "3"),
    *("--iterations", "4", "--device", "cpu"),
]


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(tmp_path, **fields):
    return BrainConfig(**{"out": tmp_path / "run", "size": SIZE, "device": "cpu", **fields})


def write_case(root, name, *, shape=(20, 18, 17), seg=True, suffix=".nii.gz", dtype=np.int16):
    """Write a scan of a cuboid head, and return the array of each file."""
    rng = np.random.default_rng(sum(map(ord, name)))
    head = np.zeros(shape, bool)
    head[3:-3, 2:-2, 4:-4] = True
    arrays = {m: np.where(head, rng.integers(1, 500, shape), 0).astype(dtype) for m in MODALITIES}
    if seg:
        arrays["seg"] = np.where(head, rng.choice([0, 1, 2, 4], shape), 0).astype(np.int16)
    folder = root / name
    folder.mkdir(parents=True)
    for kind, array in arrays.items():
        nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{name}_{kind}{suffix}")
    return arrays


# Volumes


def test_a_generated_case_is_the_same_every_time_and_differs_from_the_next():
    first, again, other = generate(3, SIZE), generate(3, SIZE), generate(4, SIZE)
    np.testing.assert_array_equal(first.images, again.images)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert (first.images != other.images).any()


@pytest.mark.parametrize("case", range(5))
def test_a_generated_case_holds_every_label_inside_a_normalised_brain(case):
    volume = generate(case, (24, 32, 32))
    assert set(np.unique(volume.labels)) == {0, 1, 2, 4}
    assert not volume.labels[~volume.brain].any()
    for image in volume.images:
        assert not image[~volume.brain].any()
        assert image[volume.brain].mean() == pytest.approx(0, abs=1e-5)
        assert image[volume.brain].std() == pytest.approx(1, abs=1e-5)


def test_only_the_contrast_agent_makes_the_enhancing_rim_bright():
    volume = generate(0, (24, 32, 32))
    rim = volume.images[:, volume.labels == 4].mean(axis=1)
    assert rim[MODALITIES.index("t1ce")] > 1.5
    assert rim[MODALITIES.index("t1")] < 0.5


@pytest.mark.parametrize("size", [(5, 5, 5), (40, 5, 8), (4, 30, 6)])
def test_the_window_is_centred_on_the_brain_and_padded_with_zeros(size):
    brain = np.zeros((20, 12, 9), bool)
    brain[15:18, 1:4, 6:9] = True  # in a corner: every window sticks out somewhere
    values = np.where(brain, np.arange(brain.size).reshape(brain.shape), 0)
    cut = crop_or_pad(values, brain, size)
    assert cut.shape == size
    low = [n // 2 - 1 for n in size]
    inner = cut[tuple(slice(a, a + 3) for a in low)]
    np.testing.assert_array_equal(inner, values[15:18, 1:4, 6:9])
    assert np.count_nonzero(cut) == 27


def test_a_voxel_that_is_not_finite_is_left_out_of_the_brain():
    images = np.random.default_rng(0).uniform(1, 2, (4, 16, 16, 16)).astype(np.float32)
    images[2, 8, 8, 8], images[0, 1, 1, 1] = np.nan, np.inf
    volume = prepare("scan", images, None, SIZE)
    assert (~volume.brain).sum() == 2
    assert np.isfinite(volume.images).all()
    assert not volume.images[:, 8, 8, 8].any()


def test_a_constant_modality_becomes_zero_and_not_nan():
    volume = prepare("scan", np.ones((4, *SIZE), np.float32), None, SIZE)
    assert volume.brain.all()
    assert not volume.images.any()


def test_a_volume_without_a_brain_or_with_an_unknown_label_is_refused():
    images = np.ones((4, *SIZE), np.float32)
    with pytest.raises(InputError, match="scan: no voxel"):
        prepare("scan", 0 * images, None, SIZE)
    for wrong in (3, np.nan):
        with pytest.raises(InputError, match=f"scan: .*0, 1, 2 and 4; found {wrong}"):
            prepare("scan", images, np.full(SIZE, wrong, np.float32), SIZE)


# BraTS


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_a_brats_case_is_read_normalised_and_cropped(tmp_path, suffix):
    arrays = write_case(tmp_path, "BraTS20_001", suffix=suffix)
    volume = read_case(*find_cases(tmp_path), SIZE)
    # The head spans 3:17, 2:16 and 4:13, so its centre is 10, 9 and 8; a window of 16 goes from
    # 2, 1 and 0, sticking out by nothing.
    window = (slice(2, 18), slice(1, 17), slice(0, 16))
    np.testing.assert_array_equal(volume.labels, arrays["seg"][window])
    for position, modality in enumerate(MODALITIES):
        scan = arrays[modality].astype(float)
        head = scan[3:-3, 2:-2, 4:-4]
        expected = np.where(scan > 0, (scan - head.mean()) / head.std(), 0)[window]
        np.testing.assert_allclose(volume.images[position], expected, atol=1e-5)


def test_every_fifth_case_is_for_validation_and_all_are_used_once(tmp_path):
    for number in range(7):
        write_case(tmp_path / "data", f"case{number}", seg=False)
    (tmp_path / "data" / "readme").mkdir()
    settings = config(tmp_path, data=tmp_path / "data")
    names = {
        split: [read().name[-5:] for read in open_split(settings, split)]
        for split in ("train", "val")
    }
    assert names == {
        "train": ["case1", "case2", "case3", "case4", "case6"],
        "val": ["case0", "case5"],
    }


def test_an_incomplete_or_broken_case_is_named(tmp_path):
    write_case(tmp_path / "a", "one")
    (tmp_path / "a/one/one_t2.nii.gz").unlink()
    with pytest.raises(InputError, match=r"one_t2.nii.gz not found"):
        find_cases(tmp_path / "a")

    write_case(tmp_path / "b", "one")
    (tmp_path / "b/one/one_t1.nii.gz").write_bytes(b"no scan")
    with pytest.raises(InputError, match=r"one_t1.nii.gz: not a readable"):
        find_cases(tmp_path / "b")

    write_case(tmp_path / "c", "one")
    wrong = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4))
    nibabel.save(wrong, tmp_path / "c/one/one_seg.nii.gz")
    with pytest.raises(InputError, match=r"flair 20x18x17.* seg 4x4x4"):
        find_cases(tmp_path / "c")

    write_case(tmp_path / "d", "one", suffix=".nii")
    path = tmp_path / "d/one/one_t1.nii"
    path.write_bytes(path.read_bytes()[:1000])  # the header is whole, the voxels are not
    with pytest.raises(InputError, match=r"one_t1.nii: not a readable"):
        read_case(*find_cases(tmp_path / "d"), SIZE)


# Batches


@pytest.mark.parametrize("missing", MODALITIES)
def test_the_missing_modality_is_the_target_and_no_input(missing):
    volume = generate(0, SIZE)
    batch = to_batch([volume], missing)
    others = [m for m in MODALITIES if m != missing]
    for channel, modality in enumerate(others):
        expected = volume.images[MODALITIES.index(modality)]
        np.testing.assert_array_equal(batch.inputs[0, channel], expected)
    target = batch.targets["synthesis"]
    np.testing.assert_array_equal(target[0, 0], volume.images[MODALITIES.index(missing)])
    pairs = zip(batch.targets["segmentation"].unique(), (0, 1, 2, 4), strict=True)
    for class_index, label in pairs:
        np.testing.assert_array_equal(
            batch.targets["segmentation"][0] == class_index, volume.labels == label
        )


def test_a_volume_without_labels_is_masked_or_if_alone_has_no_target():
    labelled, unlabelled = generate(0, SIZE), generate(1, SIZE)._replace(labels=None)
    both = to_batch([unlabelled, labelled], "flair")
    assert not both.masks["segmentation"][0].any()
    np.testing.assert_array_equal(both.masks["segmentation"][1], labelled.brain)
    alone = to_batch([unlabelled], "flair")
    assert alone.targets["segmentation"] is None
    assert alone.masks["synthesis"].any()


def test_every_case_is_seen_before_one_is_seen_again(tmp_path):
    order = training_order(config(tmp_path, iterations=7, batch_size=2), 7)
    seen = list(itertools.chain.from_iterable(order))
    assert sorted(seen[:7]) == sorted(seen[7:]) == list(range(7))
    another = training_order(config(tmp_path, iterations=7, batch_size=2, seed=1), 7)
    assert list(itertools.chain.from_iterable(another)) != seen


# Network


def test_the_network_is_built_as_described_and_about_as_large_as_published():
    model = RSNet("flair")
    assert count_parameters(model) == pytest.approx(674_455, rel=0.005)
    kinds = [
        (m.kernel_size, m.stride) for m in model.modules() if isinstance(m, nn.ConvTranspose3d)
    ]
    assert kinds == [((5, 5, 5), (2, 2, 2))] * 3
    for block, inputs, outputs in ((model.synthesis, 9, 1), (model.segmentation, 8, 4)):
        layers = [m for m in block.modules() if isinstance(m, nn.Conv3d)]
        assert [m.kernel_size[0] for m in layers] == [3, 1, 1, 1]
        assert [m.in_channels for m in layers] == [inputs, 16, 8, 4]
        assert layers[-1].out_channels == outputs
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.1}


def test_outputs_have_the_size_of_the_input_and_volumes_of_a_batch_do_not_mix():
    model = RSNet("t1", base_width=2).eval()
    inputs = torch.randn(2, 3, 16, 24, 32)
    with torch.no_grad():
        both, second = model(inputs), model(inputs[1:])
    assert both["synthesis"].shape == (2, 1, 16, 24, 32)
    assert both["segmentation"].shape == (2, 4, 16, 24, 32)
    for task, output in second.items():
        torch.testing.assert_close(both[task][1:], output, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("missing", "guide"), [("flair", "t2"), ("t1", "t1ce"), ("t1ce", "t1")])
def test_the_regression_block_sees_one_input_volume_past_the_unet(missing, guide):
    model = RSNet(missing, base_width=1).eval()
    for parameter in model.unet.parameters():
        nn.init.zeros_(parameter)
    inputs = torch.randn(1, 3, *SIZE, requires_grad=True)
    outputs = model(inputs)
    outputs["synthesis"].square().sum().backward()
    reached = inputs.grad[0].flatten(1).any(dim=1).tolist()
    assert reached == [m == guide for m in MODALITIES if m != missing]


# Losses


def test_manual_weights_give_the_weighted_sum_of_torch_s_own_losses(tmp_path):
    batch = to_batch([generate(0, SIZE)], "flair")
    predictions = {"synthesis": torch.randn(1, 1, *SIZE), "segmentation": torch.randn(1, 4, *SIZE)}
    brain = batch.masks["synthesis"]
    mse = F.mse_loss(predictions["synthesis"][:, 0][brain], batch.targets["synthesis"][:, 0][brain])
    logits = predictions["segmentation"].movedim(1, -1)[brain]
    weight = torch.tensor([1.0, 4.0, 4.0, 4.0])
    ce = F.cross_entropy(logits, batch.targets["segmentation"][brain], weight=weight)

    loss_fn = build_loss(config(tmp_path, weighting="manual:0.1,2.0"))
    losses = loss_fn(predictions, batch.targets, batch.masks)
    torch.testing.assert_close(losses.tasks, {"synthesis": 2 * mse, "segmentation": 0.1 * ce})
    torch.testing.assert_close(losses.total, 2 * mse + 0.1 * ce)
    torch.testing.assert_close(losses.errors, {"synthesis": mse, "segmentation": ce})
    classes = weight[batch.targets["segmentation"][brain]]
    assert losses.counts["synthesis"] == brain.sum()
    torch.testing.assert_close(losses.counts["segmentation"], classes.sum())
    learned = build_loss(config(tmp_path))(predictions, batch.targets, batch.masks)
    torch.testing.assert_close(learned.total, mse / 2 + ce)  # sigma is 1


@pytest.mark.parametrize("weighting", ["uncertainty", "manual:0.1,1.0"])
def test_a_volume_without_labels_trains_the_synthesis_alone(tmp_path, weighting):
    batch = to_batch([generate(0, SIZE)._replace(labels=None)], "flair")
    model, loss_fn = RSNet("flair", base_width=1), build_loss(config(tmp_path, weighting=weighting))
    losses: MultiTaskLoss = loss_fn(model(batch.inputs), batch.targets, batch.masks)
    assert losses.tasks["segmentation"] == losses.counts["segmentation"] == 0
    assert losses.errors["segmentation"].isnan()
    assert losses.total == losses.tasks["synthesis"] != 0
    losses.total.backward()
    unused = [p.grad for p in model.segmentation.parameters()]
    assert not any(gradient is not None and gradient.any() for gradient in unused)
    assert any(p.grad.any() for p in model.synthesis.parameters())
    if weighting == "uncertainty":
        assert loss_fn["segmentation"].log_var.grad == 0
        assert loss_fn["synthesis"].log_var.grad != 0


def test_sigma_moves_to_the_optimum_of_each_loss(tmp_path):
    loss_fn = build_loss(config(tmp_path))
    optimizer = build_optimizer(nn.Linear(1, 1), loss_fn, config(tmp_path, sigma_lr=0.05))
    brain = torch.ones(1, *SIZE, dtype=torch.bool)
    predictions = {"synthesis": torch.zeros(1, 1, *SIZE), "segmentation": torch.zeros(1, 4, *SIZE)}
    targets = {
        "synthesis": torch.full((1, 1, *SIZE), 0.5),
        "segmentation": torch.zeros(1, *SIZE, dtype=torch.long),
    }
    for _ in range(300):
        optimizer.zero_grad()
        loss_fn(predictions, targets, dict.fromkeys(targets, brain)).total.backward()
        optimizer.step()
    sigmas = loss_fn.sigmas()
    assert sigmas["synthesis"] == pytest.approx(0.5, rel=0.01)  # the residual's
    assert sigmas["segmentation"] == pytest.approx(math.sqrt(2 * math.log(4)), rel=0.01)


def test_a_loss_that_is_not_finite_stops_training_by_name():
    with pytest.raises(NonFiniteLossError, match=r"iteration 7: .* 'synthesis' is nan"):
        check_finite({"loss": {"synthesis": math.nan, "segmentation": None}}, 7)


# Metrics


def test_dice_agrees_with_scikit_learn_and_with_the_convention_for_empty_masks():
    generator = torch.Generator().manual_seed(0)
    for share in (0.1, 0.5, 0.9):
        predicted, true = torch.rand(2, 500, generator=generator) < share
        assert dice(predicted, true) == pytest.approx(f1_score(true.numpy(), predicted.numpy()))
    nothing, everything = torch.zeros(5, dtype=torch.bool), torch.ones(5, dtype=torch.bool)
    assert dice(nothing, nothing) == 1
    assert dice(everything, nothing) == dice(nothing, everything) == 0


def test_dice_of_each_region_by_hand():
    # Classes 1, 2, 3 are the labels 1 (core), 2 (oedema), 4 (enhancing).
    true = torch.tensor([0, 1, 2, 3, 3, 0, 3])
    predicted = torch.tensor([0, 3, 2, 3, 2, 1, 0])
    brain = torch.tensor([1, 1, 1, 1, 1, 1, 0], dtype=torch.bool)
    assert region_dice(predicted, true, brain) == pytest.approx(
        {
            "whole": 2 * 4 / (5 + 4),  # predicted 1-5, true 1-4
            "enhancing": 2 * 1 / (2 + 2),  # predicted 1 and 3, true 3 and 4
            "core": 2 * 2 / (3 + 3),  # predicted 1, 3 and 5, true 1, 3 and 4
        }
    )


def test_mse_counts_the_mask_alone_and_is_1_for_predicting_the_mean():
    prediction = torch.tensor([1.0, 2.0, 50.0])
    target = torch.tensor([0.0, 4.0, math.nan])
    assert masked_mse(prediction, target, torch.tensor([True, True, False])) == 2.5
    volume = generate(0, SIZE)
    flair = torch.from_numpy(volume.images[0])
    brain = torch.from_numpy(volume.brain)
    assert masked_mse(torch.zeros(SIZE), flair, brain) == pytest.approx(1, abs=1e-4)


# The command line


def status(arguments):
    """Run a command and return its exit status, also if argparse exits."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "deep" / "run"
    assert status(["train", "--out", out, *TINY]) == 0
    return out


def read_lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_configuration_log_and_checkpoint(run):
    assert sorted(path.name for path in run.iterdir()) == [
        "config.json",
        "last.pt",
        "metrics.jsonl",
    ]
    assert load_config(run).base_width == 1
    assert to_json(load_config(run)) == (run / "config.json").read_text()
    lines = read_lines(run)
    assert [line["iteration"] for line in lines] == [0, 1, 2, 3]
    assert lines[0]["sigma"] == {"synthesis": 1, "segmentation": 1}
    assert lines[3]["sigma"] != lines[0]["sigma"]
    for line in lines:
        for task, factor in (("synthesis", 0.5), ("segmentation", 1)):
            assert line["weight"][task] * line["sigma"][task] ** 2 == pytest.approx(factor)
    saved = read_checkpoint(run / "last.pt")  # torch.load(weights_only=True)
    assert saved["iteration"] == 4
    assert {key for key in saved["loss"] if key.endswith("log_var")} == {
        "heads.synthesis.log_var",
        "heads.segmentation.log_var",
    }


def test_a_checkpoint_of_an_older_version_evaluates_alike(run, tmp_path):
    older = tmp_path / "run"
    shutil.copytree(run, older)
    saved = read_checkpoint(older / "last.pt")
    saved["loss"] = {k: v for k, v in saved["loss"].items() if k.endswith("log_var")}
    save_checkpoint(older / "last.pt", saved)
    for folder in (run, older):
        assert status(["evaluate", "--run", folder]) == 0
    assert (older / "metrics.json").read_text() == (run / "metrics.json").read_text()
    (run / "metrics.json").unlink()


def test_the_same_seed_gives_the_same_run_and_another_one_another(run, tmp_path):
    for seed in (0, 1):
        assert status(["train", "--out", tmp_path / str(seed), "--seed", seed, *TINY]) == 0
    assert read_lines(tmp_path / "0") == read_lines(run)
    assert read_lines(tmp_path / "1") != read_lines(run)


def test_the_seed_decides_the_initial_network_too(tmp_path):
    for seed in (0, 1):  # of one case there is only one order
        arguments = [*TINY, "--cases", "1", "--iterations", "1", "--seed", seed]
        assert status(["train", "--out", tmp_path / str(seed), *arguments]) == 0
    assert read_lines(tmp_path / "0") != read_lines(tmp_path / "1")


def test_evaluate_writes_the_figures(run, capsys):
    assert status(["evaluate", "--run", run, "--device", "cpu"]) == 0
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["cases"] == metrics["labelled_cases"] == 1
    assert all(0 <= metrics[f"dice_{region}"] <= 1 for region in ("whole", "enhancing", "core"))
    assert metrics["mse"] > 0
    assert metrics["weight_ratio"] == pytest.approx(
        metrics["weight"]["segmentation"] / metrics["weight"]["synthesis"]
    )
    first = capsys.readouterr().out
    assert "dice_whole" in first
    assert status(["evaluate", "--run", run]) == 0
    assert capsys.readouterr().out == first  # nothing is dropped out when measuring
    (run / "metrics.json").unlink()


def test_brats_cases_train_and_evaluate_labelled_or_not(tmp_path):
    data = tmp_path / "data"
    for name, seg in (("a", False), ("b", True), ("c", False)):
        write_case(data, name, seg=seg)
    arguments = ["--data", data, "--weighting", "manual:0.1,1.0", *TINY]
    assert status(["train", "--out", tmp_path / "run", *arguments]) == 0
    losses = [line["loss"]["segmentation"] for line in read_lines(tmp_path / "run")]
    assert losses.count(None) == 2  # b and c were seen twice each
    assert status(["evaluate", "--run", tmp_path / "run"]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    assert metrics["dice_whole"] is None  # the validation case is a
    assert metrics["mse"] > 0
    assert metrics["weight_ratio"] == pytest.approx(0.1)


def test_compare_writes_both_weightings_beside_the_published_rows(tmp_path, capsys):
    out = tmp_path / "table"
    assert status(["compare", "--out", out, "--seeds", "0,1", *TINY]) == 0
    with (out / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["weighting"], row["seed"]) for row in rows] == [
        *[("manual", "0"), ("learned", "0"), ("manual", "1"), ("learned", "1")],
        *[("manual", "mean"), ("learned", "mean"), ("manual", ""), ("learned", "")],
    ]
    for column in ("dice_whole", "mse", "weight_ratio"):
        values = [float(row[column]) for row in rows]
        assert values[5] == pytest.approx((values[1] + values[3]) / 2)
        assert values[6:] == [row[column] for row in PUBLISHED]
    text = (out / "comparison.md").read_text()
    assert capsys.readouterr().out.endswith(text)
    change = float(rows[5]["mse"]) - float(rows[4]["mse"])
    assert f"mse {change:+.4f}" in text
    assert status(["compare", "--out", out, *TINY]) == 2


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--size", "16x16"], "DxHxW"),
        (["--size", "16x16x20"], "multiples of 8"),
        (["--size", "8x16x16"], "from 16 up"),
        (["--weighting", "manual:1"], "manual:0.1,1.0"),
        (["--weighting", "equal"], "found 'equal'"),
        (["--weighting", "manual:nan,1"], "manual:nan,1"),
        (["--iterations", "0"], "--iterations: should be at least 1; found 0"),
        (["--lr", "-1"], "--lr: should be above 0"),
        (["--lr", "nan"], "--lr"),
        (["--seed", "-1"], "--seed"),
        (["--seed", "9223372036854775808"], "--seed: should be below 2**63"),
        (["--iterations", "9223372036854775808"], "--iterations: should be below 2**63"),
        (["--missing", "dwi"], "dwi"),
        (["--data", "no/such/folder"], "no/such/folder: no such folder"),
        (["--data", "."], "no case found"),
        (["--frob", "1"], "--frob"),
    ],
)
def test_what_cannot_be_used_is_one_clear_line_and_nothing_is_written(
    wrong, says, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert status(["train", "--out", "run", *TINY, *wrong]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert says in line
    assert not list(tmp_path.iterdir())


def test_a_run_is_never_overwritten(run, tmp_path, capsys):
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    assert status(["train", "--out", run, *TINY]) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before
    (tmp_path / "file").write_text("")
    assert status(["train", "--out", tmp_path / "file", *TINY]) == 2


def test_a_run_that_cannot_be_read_is_one_clear_line(run, tmp_path, capsys):
    folder = tmp_path / "run"
    assert status(["evaluate", "--run", folder]) == 2
    folder.mkdir()
    (folder / "config.json").write_text((run / "config.json").read_text())
    assert status(["evaluate", "--run", folder]) == 2
    (folder / "last.pt").write_bytes(b"no checkpoint")
    assert status(["evaluate", "--run", folder]) == 2
    (folder / "last.pt").write_bytes((run / "last.pt").read_bytes())
    other = (run / "config.json").read_text().replace('"base_width": 1', '"base_width": 2')
    (folder / "config.json").write_text(other)
    assert status(["evaluate", "--run", folder]) == 2
    (folder / "config.json").write_text("{}")
    assert status(["evaluate", "--run", folder]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 5
    assert all(line.startswith("error: ") and str(folder) in line for line in lines)
