"""One command at a time writes a folder: the second is refused, and names the first."""

import errno
import multiprocessing
import os
import signal
import time

import pytest

from examples.cityscapes.__main__ import main
from examples.cityscapes.training.log import read_log
from examples.common import lock
from examples.common.errors import InputError
from examples.common.lock import lock_file, locked
from tests.examples.tiny_run import TINY, as_flags, finish, start
from tests.examples.tiny_tree import write_tree


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder with a dataset `scenes`, a finished `run` and some `photos`."""
    root = tmp_path_factory.mktemp("locks")
    data = write_tree(root / "scenes")
    command = ["train", "--data", data, "--out", root / "run", *as_flags(TINY)]
    assert main([str(word) for word in command]) == 0
    (root / "photos").symlink_to(data / "leftImg8bit/train/town")
    return root


def refusal(arguments, capsys):
    """Return the one line that a refused command prints."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("written", "command"),
    [
        ("new", "train --data scenes --out new"),
        ("run", "train --out run --resume"),
        ("new", "prepare --data scenes --out new --size 16x32"),
        ("new", "synthesize --out new --train 1 --val 1 --size 32x64"),
        ("run/official", "evaluate --run run --data scenes --official"),
        ("new", "predict --run run --image photos --out new"),
        ("new", "demo --out new"),
        ("new", "table1 --data scenes --out new --backbone-weights none --size 16x32"),
        ("new", "sweep --data scenes --out new --backbone-weights none --size 16x32"),
        ("new", "inits --data scenes --out new --backbone-weights none --size 16x32"),
    ],
)
def test_every_command_that_writes_a_folder_is_refused_while_another_does(
    folder, monkeypatch, capsys, written, command
):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("sys.argv", ["__main__.py", "train", "--out", "the first"])
    before = sorted(folder.rglob("*"))
    with locked(folder / written):
        line = refusal(command.split(), capsys)
    assert f"process {os.getpid()} on " in line
    assert ": train --out 'the first'); wait until it has ended, or choose another" in line
    assert sorted(folder.rglob("*")) == before


def test_a_run_is_measured_and_reported_while_it_is_trained(folder):
    with locked(folder / "run"):
        for command in ("evaluate", "report"):
            assert main([command, "--run", str(folder / "run"), "--data", f"{folder}/scenes"]) == 0


def test_a_second_training_is_refused_and_a_killed_one_resumes_at_once(folder, tmp_path, capsys):
    out = tmp_path / "run"
    # Worker processes are forked: they have the open lock file, and outlive their parent.
    more = ["--num-workers", 2, "--cache-mb", 0, "--checkpoint-every", 2, "--iterations", 10**6]
    flags = [*as_flags(TINY), *more]
    first = start(["train", "--data", folder / "scenes", "--out", out, *flags])
    while not (out / "last.pt").exists() and first.is_alive():
        time.sleep(0.01)
    line = refusal(["train", "--out", out, "--resume"], capsys)
    assert f"{out}: another command writes there (process {first.pid} on " in line
    os.kill(first.pid, signal.SIGKILL)
    first.join()
    assert lock_file(out).exists()
    done = len(read_log(out / "metrics.jsonl"))
    finish(start(["train", "--out", out, "--resume", "--iterations", done + 2]))
    assert not lock_file(out).exists()


def count_up(path, rounds):
    for _ in range(rounds):
        with locked(path.parent, wait=True):
            path.write_text(str(int(path.read_text()) + 1))


def test_no_two_processes_have_the_lock_at_the_same_time(tmp_path):
    path = tmp_path / "folder" / "count"
    path.parent.mkdir()
    path.write_text("0")
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=count_up, args=(path, 100)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        finish(process)
    assert path.read_text() == "400"


def test_a_lock_leaves_nothing_behind(tmp_path):
    with locked(tmp_path / "a/b/c"):
        assert lock_file(tmp_path / "a/b/c") == tmp_path / "a/b/.c.lock"
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError), locked(tmp_path / "a"), locked(tmp_path / "x/../a"):
        pass
    assert not list(tmp_path.iterdir())


def test_where_nothing_can_be_written_beside_it_the_lock_is_inside(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("os.access", lambda path, _: path != tmp_path)
    out = tmp_path / "mounted"
    out.mkdir()
    with locked(out):
        assert [path.name for path in out.iterdir()] == [".mounted.lock"]
        data = write_tree(tmp_path / "scenes")
        command = ["prepare", "--data", data, "--out", out, "--size", "16x32", "--workers", 1]
        assert "another command" in refusal(command, capsys)
    assert main([str(word) for word in command]) == 0


@pytest.mark.parametrize("reason", ["none at all", "not on this disk"])
def test_without_locks_one_warning_is_printed_and_the_command_goes_on(
    tmp_path, monkeypatch, capsys, reason
):
    def flock(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    if reason == "none at all":
        monkeypatch.setattr(lock, "fcntl", None)
    else:
        monkeypatch.setattr("fcntl.flock", flock)
    with locked(tmp_path / "new"):
        printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert f"warning: {tmp_path / 'new'} cannot be locked" in printed


def test_of_several_ranks_only_the_first_locks(tmp_path, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost")):
        monkeypatch.setenv(name, value)
    with locked(tmp_path / "new"):
        assert not list(tmp_path.iterdir())
        monkeypatch.setenv("RANK", "0")
        with locked(tmp_path / "new"):
            assert list(tmp_path.iterdir())
