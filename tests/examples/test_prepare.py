"""The prepared copy: equal to its source, finished after a kill, and not trusted blindly."""

import dataclasses
import json
import os
import pickle

import numpy as np
import pytest
import torch

from examples.cityscapes.__main__ import main
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data import prepare as preparing
from examples.cityscapes.data.augment import Augmentation, Box, crop
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.files import FINE
from examples.cityscapes.data.order import Draw, in_order
from examples.cityscapes.data.prepare import prepare
from examples.cityscapes.data.prepared import PreparedSplit
from examples.cityscapes.data.shards import frames_per_shard
from examples.cityscapes.training import train as training
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.test_labels_on_disk import camera, write_camera
from tests.examples.test_train import TINY, assert_same
from tests.examples.tiny_tree import write_tree

TASKS = ("semantic", "instance", "depth")
SIZE = (16, 32)


@pytest.fixture
def tree(tmp_path):
    root = write_tree(tmp_path / "raw", train=6, val=2, size=(32, 64))
    write_camera(root, "town_000001_000000", camera(0.2, 2000.0))
    (root / "disparity/train/town/town_000002_000000_disparity.png").unlink()
    return root


def contents(out):
    """Return every byte of a prepared folder, by name."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def status(*arguments):
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as error:
        return error.code


def complaint(capsys, *arguments):
    capsys.readouterr()
    assert status(*arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


def test_every_prepared_sample_is_the_sample_of_the_raw_tree(tree, tmp_path):
    assert prepare(tree, tmp_path / "out", SIZE, workers=1, per_shard=4) == {"train": 6, "val": 2}
    for split, count in (("train", 6), ("val", 2)):
        raw, ready = (
            CityscapesDataset(root, split, SIZE, TASKS) for root in (tree, tmp_path / "out")
        )
        assert len(raw) == len(ready) == count
        assert raw.frames == ready.frames
        for index in range(count):
            torch.testing.assert_close(
                raw.read(index), ready.read(index), equal_nan=True, rtol=0, atol=0
            )


def test_a_limit_copies_the_first_images_of_each_split_and_more_can_follow(tree, tmp_path):
    out = tmp_path / "out"
    flags = ["--data", tree, "--out", out, "--size", "16x32", "--workers", 1]
    for limit, expected in ((["--limit", 1], (1, 1)), (["--limit", 3], (3, 2)), ([], (6, 2))):
        assert status("prepare", *flags, *limit) == 0
        for split, count in zip(("train", "val"), expected, strict=True):
            whole, part = (CityscapesDataset(root, split, SIZE, TASKS) for root in (tree, out))
            assert part.frames == whole.frames[:count]
            last = (data.read(count - 1) for data in (whole, part))
            torch.testing.assert_close(*last, equal_nan=True, rtol=0, atol=0)


def test_a_part_read_from_the_copy_is_that_part_of_the_whole(tree, tmp_path):
    prepare(tree, tmp_path / "out", SIZE, workers=1)
    split = PreparedSplit(tmp_path / "out", "train", SIZE, TASKS, FINE)
    box = Box(3, 5, 9, 20)
    expected = crop(split.read(1), box)
    torch.testing.assert_close(split.read(1, box), expected, equal_nan=True, rtol=0, atol=0)


def test_the_copy_holds_plain_arrays_and_json(tree, tmp_path):
    prepare(tree, tmp_path / "out", SIZE, workers=1)
    for path in (p for p in (tmp_path / "out").rglob("*") if p.is_file()):
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            mapped = np.load(path, mmap_mode="r", allow_pickle=False)
            assert mapped.dtype.kind in "uf"


@pytest.mark.parametrize("augmented", [False, True])
def test_training_on_the_copy_ends_bit_identical_to_training_on_the_tree(tree, tmp_path, augmented):
    prepare(tree, tmp_path / "ready", SIZE, workers=1, per_shard=2)
    extra = {"crop": (16, 16), "scale": (1.0, 2.0)} if augmented else {}
    ends = []
    for data in (tree, tmp_path / "ready"):
        config = TrainConfig(data=data, out=tmp_path / f"run-{data.name}", **{**TINY, **extra})
        training.train(config)
        ends.append(read_checkpoint(config.out / "last.pt"))
    assert_same(*ends)


def test_scales_and_crops_are_drawn_again_alike_when_a_run_resumes(tree, tmp_path, monkeypatch):
    prepare(tree, tmp_path / "ready", SIZE, workers=1)
    config = TrainConfig(
        data=tmp_path / "ready",
        out=tmp_path / "run",
        **{**TINY, "crop": (8, 16), "scale": (0.7, 2.0), "checkpoint_every": 3},
    )
    training.train(config)

    def stop_at_five(state, batch, config, iteration, log, step=training.train_one_step):
        if iteration == 5:
            raise KeyboardInterrupt
        step(state, batch, config, iteration, log)

    again = dataclasses.replace(config, out=tmp_path / "again")
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_one_step", stop_at_five)
        with pytest.raises(KeyboardInterrupt):
            training.train(again)
    training.train(again, resume=True)
    assert_same(*(read_checkpoint(c.out / "last.pt") for c in (config, again)))


def test_worker_processes_read_the_same_batches(tree, tmp_path):
    prepare(tree, tmp_path / "out", SIZE, workers=1)
    augmentation = Augmentation(True, (0.7, 2.0), (8, 16))
    dataset = CityscapesDataset(tmp_path / "out", "train", SIZE, TASKS, augmentation)
    order = [[Draw(0, 3), Draw(4, 8)], [Draw(2, 5), Draw(1, 7)]]
    here, there = (list(batches(dataset, order, TASKS, num_workers=n)) for n in (0, 1))
    torch.testing.assert_close(here, there, equal_nan=True, rtol=0, atol=0)


def test_a_split_is_sent_to_another_process_without_its_images(tree, tmp_path):
    prepare(tree, tmp_path / "out", SIZE, workers=1)
    split = PreparedSplit(tmp_path / "out", "train", SIZE, TASKS, FINE)
    expected = split.read(5)
    sent = pickle.dumps(split)  # as multiprocessing does it
    assert len(sent) < 10_000
    torch.testing.assert_close(pickle.loads(sent).read(5), expected, equal_nan=True)  # noqa: S301


def test_preparing_again_writes_nothing(tree, tmp_path, monkeypatch):
    prepare(tree, tmp_path / "out", SIZE, workers=1)

    def write(*args):
        raise AssertionError("nothing has changed")

    monkeypatch.setattr(preparing, "write_shards", write)
    monkeypatch.setattr(preparing, "write_atomically", write)
    assert prepare(tree, tmp_path / "out", SIZE, workers=1) == {"train": 6, "val": 2}


def image_of(tree, number):
    return tree / f"leftImg8bit/train/town/town_{number:06d}_000000_leftImg8bit.png"


def repaint(path):
    """Change the content of a file, but not its size."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    later = path.stat().st_mtime_ns + 1
    path.write_bytes(content)
    os.utime(path, ns=(later, later))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize("damage", [repaint, truncate])
def test_a_source_that_has_changed_is_named_and_renewing_costs_only_its_shard(
    tree, tmp_path, damage, capsys
):
    out = tmp_path / "out"
    prepare(tree, out, SIZE, workers=1, per_shard=2)
    intact = image_of(tree, 3).read_bytes()
    damage(image_of(tree, 3))
    line = complaint(capsys, "train", "--data", out, "--out", tmp_path / "run", "--size", "16x32")
    assert "town_000003" in line
    assert "has changed since" in line
    assert not (tmp_path / "run").exists()

    image_of(tree, 3).write_bytes(intact[:60])
    before = contents(out)
    line = complaint(capsys, "prepare", "--data", tree, "--out", out, "--size", "16x32")
    assert "town_000003" in line
    image_of(tree, 3).write_bytes(image_of(tree, 4).read_bytes())
    prepare(tree, out, SIZE, workers=1, per_shard=2)
    after = contents(out)
    changed = {name.rsplit("/", 1)[0] for name in after if after[name] != before[name]}
    assert changed == {"train/00001"}
    images = CityscapesDataset(out, "train", SIZE, TASKS)
    assert torch.equal(images.read(3).image, images.read(4).image)


def test_touched_copied_moved_or_deleted_sources_are_no_change(tree, tmp_path):
    prepare(tree, tmp_path / "out", SIZE, workers=1)
    os.utime(image_of(tree, 0))
    image_of(tree, 1).unlink()
    assert len(PreparedSplit(tmp_path / "out", "train", SIZE, TASKS, FINE).frames) == 6
    tree.rename(tmp_path / "elsewhere")
    assert len(PreparedSplit(tmp_path / "out", "train", SIZE, TASKS, FINE).frames) == 6


def test_frames_that_come_and_go_are_followed(tree, tmp_path):
    out = tmp_path / "out"
    prepare(tree, out, SIZE, workers=1, per_shard=2)
    for kind in ("leftImg8bit", "gtFine", "disparity"):
        for path in (tree / kind).rglob("town_00000[345]*"):
            path.unlink()
    (tree / "disparity/train/town/town_000000_000000_disparity.png").unlink()
    prepare(tree, out, SIZE, workers=1, per_shard=2)
    prepare(tree, tmp_path / "fresh", SIZE, workers=1, per_shard=2)
    assert contents(out) == contents(tmp_path / "fresh")
    assert len(PreparedSplit(out, "train", SIZE, TASKS, FINE).frames) == 3


def test_a_damaged_copy_is_named_and_renewed(tree, tmp_path, capsys):
    out = tmp_path / "out"
    prepare(tree, out, SIZE, workers=1)
    whole = contents(out)
    truncate(out / "train/00000/semantic.npy")
    line = complaint(capsys, "train", "--data", out, "--out", tmp_path / "run", "--size", "16x32")
    assert "semantic.npy" in line
    prepare(tree, out, SIZE, workers=1)
    assert contents(out) == whole


def test_a_broken_image_ends_in_one_line_and_leaves_no_part_of_a_shard(tree, tmp_path, capsys):
    out = tmp_path / "out"
    image_of(tree, 3).write_bytes(image_of(tree, 3).read_bytes()[:200])
    arguments = ("prepare", "--data", tree, "--out", out, "--size", "16x32", "--workers", 1)
    assert f"{image_of(tree, 3)}: not a readable image" in complaint(capsys, *arguments)
    assert not list(out.rglob("*.partial"))
    assert "not completely prepared" in complaint(
        capsys, "train", "--data", out, "--out", tmp_path / "run", "--size", "16x32"
    )


@pytest.mark.parametrize(
    ("size", "named"),
    [("16x16", "cannot be resized to --size 16x16"), ("8x16", "was prepared with --size 16x32")],
)
def test_another_size_than_that_of_the_copy_is_refused(tree, tmp_path, capsys, size, named):
    out = tmp_path / "out"
    prepare(tree, out, SIZE, workers=1)
    whole = contents(out)
    assert named in complaint(capsys, "prepare", "--data", tree, "--out", out, "--size", size)
    assert contents(out) == whole
    line = complaint(capsys, "train", "--data", out, "--out", tmp_path / "run", "--size", size)
    assert f"was prepared with --size 16x32, not {size}" in line


def test_folders_that_are_something_else_are_left_alone(tree, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.tex").touch()
    line = complaint(capsys, "prepare", "--data", tree, "--out", out, "--size", "16x32")
    assert "holds something other than a prepared dataset" in line
    assert sorted(contents(out)) == ["thesis.tex"]
    line = complaint(capsys, "prepare", "--data", tmp_path / "none", "--out", tmp_path / "new")
    assert "no such folder" in line
    assert not (tmp_path / "new").exists()


def test_a_copy_without_instances_trains_only_what_it_has(tree, tmp_path):
    for path in tree.rglob("*instanceIds.png"):
        path.unlink()
    prepare(tree, tmp_path / "out", SIZE, workers=1)
    dataset = CityscapesDataset(tmp_path / "out", "train", SIZE, ("semantic", "depth"))
    assert len(list(batches(dataset, in_order(dataset), ("semantic", "depth")))) == 1
    with pytest.raises(InputError, match="prepared without instanceIds"):
        CityscapesDataset(tmp_path / "out", "train", SIZE, TASKS)


def test_evaluating_on_the_copy_gives_the_figures_of_the_tree(tree, tmp_path, capsys):
    run, ready = tmp_path / "run", tmp_path / "ready"
    arguments = ("--data", tree, "--out", ready, "--size", "16x32", "--workers", 1)
    assert status("prepare", *arguments) == 0
    assert "train: 6 images of 16x32" in capsys.readouterr().out
    training.train(TrainConfig(data=ready, out=run, **TINY))
    figures = []
    for data in (tree, ready):
        assert status("evaluate", "--run", run, "--data", data, "--device", "cpu") == 0
        figures.append(json.loads((run / "metrics.json").read_text()))
    assert figures[0] == figures[1]


def test_a_shard_is_at_most_sixteen_megabytes_or_one_frame():
    assert frames_per_shard((128, 256)) == 64
    assert frames_per_shard((1024, 2048)) == 1
    assert frames_per_shard((512, 1024)) == 4
