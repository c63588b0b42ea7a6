"""Preparing in several processes, and killing the one that does it."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool

import pytest

from examples.cityscapes.data import write_shards as writing
from examples.cityscapes.data.files import FINE
from examples.cityscapes.data.prepare import prepare
from examples.cityscapes.data.prepared import PreparedSplit
from examples.common.errors import InputError
from tests.examples.test_prepare import SIZE, TASKS, contents
from tests.examples.tiny_tree import write_tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("raw"), train=6, val=2, size=(32, 64))


def test_several_processes_write_the_bytes_that_one_writes(tree, tmp_path):
    prepare(tree, tmp_path / "one", SIZE, workers=1, per_shard=2)
    prepare(tree, tmp_path / "two", SIZE, workers=2, per_shard=2)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_worker_that_is_killed_is_no_riddle(tree, tmp_path, monkeypatch):
    class Broken:
        def __init__(self, *args, **options):
            pass

        def submit(self, *args):
            future = Future()
            future.set_exception(BrokenProcessPool("terminated abruptly"))
            return future

        def shutdown(self, **options):
            pass

    monkeypatch.setattr(writing, "ProcessPoolExecutor", Broken)
    with pytest.raises(InputError, match=r"--workers: one of them was killed.*use fewer"):
        prepare(tree, tmp_path / "out", SIZE, workers=2, per_shard=2)


def test_a_killed_preparation_goes_on_where_it_was(tree, tmp_path):
    out = tmp_path / "out"
    prepare(tree, tmp_path / "whole", SIZE, workers=1, per_shard=1)
    # Slow enough to be killed in the middle of a shard, after the third.
    script = f"""
import time
from pathlib import Path
from examples.cityscapes.data import prepare
from examples.cityscapes.data import shards
read = shards.read_raw_labels
def slow(frame, size):
    if "000003" in frame.stem:
        time.sleep(60)
    return read(frame, size)
shards.read_raw_labels = slow
prepare.prepare(Path({str(tree)!r}), Path({str(out)!r}), {SIZE}, workers=1, per_shard=1)
"""
    process = subprocess.Popen([sys.executable, "-c", script])  # noqa: S603
    deadline = time.monotonic() + 60
    while not (out / "train/00003.partial").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    with pytest.raises(InputError, match="not completely prepared; run `prepare` again"):
        PreparedSplit(out, "train", SIZE, TASKS, FINE)
    before = {p: p.stat().st_mtime_ns for p in out.glob("train/0000[0-2]/*")}
    assert len(before) == 3 * 6
    prepare(tree, out, SIZE, workers=1, per_shard=1)
    assert contents(out) == contents(tmp_path / "whole")
    assert {p: p.stat().st_mtime_ns for p in before} == before
