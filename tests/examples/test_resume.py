"""Runs that are stopped from outside, in processes of their own, and go on later."""

import random
import signal
import time

import pytest

from examples.cityscapes.training.log import read_log
from examples.common.checkpoint import read_checkpoint
from tests.examples.tiny_run import TINY, as_flags, assert_same_runs, finish, start
from tests.examples.tiny_tree import write_tree

# So many writes that a kill is likely to hit one.
SETTINGS = {**TINY, "iterations": 80, "checkpoint_every": 2, "eval_every": 5}


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    data = write_tree(tmp_path_factory.mktemp("data"))

    def of(out, *more):
        return ["train", "--data", data, "--out", out, *as_flags(SETTINGS), *more]

    return of


def written(path):
    return path.stat().st_mtime_ns if path.exists() else 0


def wait_for_a_new(path, process):
    """Wait until the file is written the next time, or the process has ended."""
    before = written(path)
    while written(path) == before and process.is_alive():
        time.sleep(0.002)


def test_a_run_killed_at_any_point_and_resumed_ends_as_if_it_had_not_been(command, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(command(whole)))
    kills = 0
    process = start(command(killed))
    for _ in range(4):
        wait_for_a_new(killed / "last.pt", process)
        time.sleep(random.random() * 0.3)  # noqa: S311
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        assert read_checkpoint(killed / "last.pt")["iteration"] > 0  # whole, whenever it was
        process = start(["train", "--out", killed, "--resume"])
    finish(process)
    assert kills > 0
    assert_same_runs(whole, killed)


@pytest.mark.parametrize("workers", [0, 2])
def test_sigterm_saves_what_is_done_and_exits_with_0(command, tmp_path, workers):
    out = tmp_path / "run"
    more = ["--num-workers", workers, "--cache-mb", 0, "--checkpoint-every", 10**6]
    process = start(command(out, *more, "--iterations", 10**6))
    wait_for_a_new(out / "validation.jsonl", process)  # some iterations are done
    process.terminate()
    finish(process)
    done = read_checkpoint(out / "last.pt")["iteration"]
    lines = read_log(out / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == list(range(done))
    assert 0 < done < 10**6
