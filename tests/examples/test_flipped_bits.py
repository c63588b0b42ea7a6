"""Bits that flip on a disk: noticed in one line, or in a place that nothing depends on."""

import random

import pytest
import torch

from examples.cityscapes.data.files import FINE
from examples.cityscapes.data.prepare import prepare
from examples.cityscapes.data.prepared import PreparedSplit
from examples.common.checkpoint import read_checkpoint, save_checkpoint
from examples.common.errors import InputError
from tests.examples.tiny_run import assert_same
from tests.examples.tiny_tree import write_tree

TASKS = ("semantic", "instance", "depth")


def flipped(content, randomness):
    """Flip one bit: half the time anywhere, half near the ends, where a file describes itself."""
    place = randomness.randrange(len(content))
    if randomness.random() < 0.5:
        place = place % min(300, len(content)) * randomness.choice((1, -1))
    changed = bytearray(content)
    changed[place] ^= 1 << randomness.randrange(8)
    return bytes(changed)


def test_a_checkpoint_with_a_flipped_bit_is_refused_or_unchanged(tmp_path):
    path, randomness = tmp_path / "last.pt", random.Random(0)  # noqa: S311
    state = {"model": {"a": torch.randn(30, 30), "b": torch.arange(5)}, "iteration": 3}
    save_checkpoint(path, state)
    content, refused = path.read_bytes(), 0
    for _ in range(400):
        path.write_bytes(flipped(content, randomness))
        try:
            assert_same(read_checkpoint(path), state)
        except InputError:
            refused += 1
    assert refused > 200  # the rest is padding


def test_a_prepared_copy_with_a_flipped_bit_is_refused_or_unchanged(tmp_path):
    randomness, size = random.Random(0), (16, 32)  # noqa: S311
    prepare(write_tree(tmp_path / "raw", train=2, val=1), tmp_path / "copy", size, workers=1)

    def read():
        split = PreparedSplit(tmp_path / "copy", "train", size, TASKS, FINE)
        return [split.read(index) for index in range(2)]

    expected, refused = read(), 0
    files = sorted((tmp_path / "copy/train").rglob("*.npy"))
    for number in range(300):
        path = files[number % len(files)]
        content = path.read_bytes()
        path.write_bytes(flipped(content, randomness))
        try:
            torch.testing.assert_close(read(), expected, rtol=0, atol=0, equal_nan=True)
        except InputError:
            refused += 1
        path.write_bytes(content)
    assert refused > 150


def test_a_frame_is_checked_when_it_is_first_read_and_no_other_is(tmp_path):
    prepare(write_tree(tmp_path / "raw", train=2, val=1), tmp_path / "copy", (16, 32), workers=1)
    path = tmp_path / "copy/train/00000/image.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    split = PreparedSplit(tmp_path / "copy", "train", (16, 32), TASKS, FINE)
    split.read(0)
    with pytest.raises(InputError, match=r"frame 1, town_000001_000000, has changed"):
        split.read(1)
