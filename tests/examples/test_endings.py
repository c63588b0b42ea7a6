"""What ends a command: one line, the right status, and nothing that was done is lost."""

import dataclasses
import errno
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from examples.cityscapes.__main__ import COMMANDS, main
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data import shards
from examples.cityscapes.data.order import TrainingOrder
from examples.cityscapes.training import train as training
from examples.common.checkpoint import read_checkpoint, save_checkpoint
from examples.common.endings import ending_of
from examples.common.errors import InputError
from tests.examples.test_train_distributed import environments
from tests.examples.tiny_run import TINY, as_flags, assert_same, assert_same_runs, finish, start
from tests.examples.tiny_tree import write_tree

REPOSITORY = Path(__file__).parents[2]
# Dropout, so that random numbers count; two parts, so that a step can break in the middle.
SETTINGS = {**TINY, "eval_every": 3, "cache_mb": 0, "dropout": 0.2, "iterations": 8}
ENDLESS = [*as_flags({**SETTINGS, "iterations": 10**6, "eval_every": 4}), "--cache-mb", 0]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"))


@pytest.fixture
def config(tree, tmp_path):
    return TrainConfig(data=tree, out=tmp_path / "run", **SETTINGS)


@pytest.fixture
def whole(config):
    """The run that nothing has ended."""
    whole = dataclasses.replace(config, out=config.out.with_name("whole"))
    training.train(whole)
    return whole.out


@pytest.fixture
def heeded_interrupt():
    # A shell starts its background jobs deaf to SIGINT, and their children inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def at_iteration(number, action, step=training.train_one_step):
    """Return a step that does something else first, once."""

    def train_one_step(state, parts, config, iteration, log):
        if iteration == number:
            action()
        step(state, parts, config, iteration, log)

    return train_one_step


def wait_for(condition, process):
    while not condition():
        assert process.is_alive() if hasattr(process, "is_alive") else process.poll() is None
        time.sleep(0.01)


def children_of(pid):
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def is_running(pid):
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def the_line(path):
    """Return the one line that a process has printed, but for its progress bars."""
    text = re.sub(r"[^\r\n]*\r", "", path.read_text() if isinstance(path, Path) else path)
    lines = [line for line in text.splitlines() if line and not line.startswith("training:")]
    assert len(lines) == 1, text
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# What ends training.


def test_an_image_that_breaks_during_an_epoch_costs_no_iteration(tmp_path, whole, monkeypatch):
    data = write_tree(tmp_path / "data")
    config = TrainConfig(data=data, out=tmp_path / "run", **SETTINGS)
    images = sorted((data / "leftImg8bit/train").rglob("*.png"))
    contents = [image.read_bytes() for image in images]

    def spoil():
        for image in images:
            image.write_bytes(b"broken")

    with monkeypatch.context() as patch:
        patch.setattr(training, "train_one_step", at_iteration(4, spoil))
        with pytest.raises(InputError, match=r"_leftImg8bit\.png: not a readable image"):
            training.train(config)
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 5
    for image, content in zip(images, contents, strict=True):
        image.write_bytes(content)
    training.train(config, resume=True)
    assert_same_runs(whole, config.out)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), torch.cuda.OutOfMemoryError("CUDA out of memory"), ValueError("a fault")],
)
def test_a_step_that_fails_in_the_middle_is_taken_back_and_the_last_one_saved(
    config, monkeypatch, error
):
    more = {"accumulate": 2, "batch_size": 4, "eval_every": 0, "sigma_init": "data"}
    config = dataclasses.replace(config, **more)
    stopped, whole = (dataclasses.replace(config, out=config.out / name) for name in "ab")
    calls = []

    def fail_in_iteration_5(*args, measure=training.measure_part):
        calls.append(0)
        if len(calls) == 2 * 5 + 2:  # of its second part, when batch norm has seen both
            raise error
        return measure(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "measure_part", fail_in_iteration_5)
        with pytest.raises(type(error)):
            training.train(stopped)
    with monkeypatch.context() as patch:
        patch.setattr(training, "train_one_step", at_iteration(4, lambda: os.kill(os.getpid(), 15)))
        training.train(whole)
    assert read_checkpoint(stopped.out / "last.pt")["iteration"] == 5
    assert_same_runs(whole.out, stopped.out)
    for run in (stopped, whole):
        training.train(run, resume=True)
    assert_same_runs(whole.out, stopped.out)


def test_a_state_between_two_iterations_is_never_saved(config, monkeypatch):
    def fail(self, *args):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    def spoil():
        monkeypatch.setattr(torch.optim.SGD, "step", fail)

    monkeypatch.setattr(training, "train_one_step", at_iteration(4, spoil))
    with pytest.raises(torch.cuda.OutOfMemoryError):
        training.train(dataclasses.replace(config, checkpoint_every=2, eval_every=0))
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 4


def test_a_broken_validation_image_is_met_after_saving(tmp_path, whole):
    data = write_tree(tmp_path / "data")
    config = TrainConfig(data=data, out=tmp_path / "run", **SETTINGS)
    image = next((data / "leftImg8bit/val").rglob("*1_000000*.png"))
    content = image.read_bytes()
    image.write_bytes(content[:120])  # its header is whole
    for resume in (False, True):
        with pytest.raises(InputError, match=image.name):
            training.train(config, resume=resume)
        assert read_checkpoint(config.out / "last.pt")["iteration"] == 3
    image.write_bytes(content)
    training.train(config, resume=True)
    assert_same_runs(whole, config.out)


@pytest.mark.usefixtures("heeded_interrupt")
def test_ctrl_c_while_validating_leaves_that_to_the_resumed_run(config, whole, monkeypatch):
    def press(*args, validate=training.validate):
        if not (config.out / "validation.jsonl").exists():
            os.kill(os.getpid(), signal.SIGINT)
        return validate(*args)

    with monkeypatch.context() as patch:
        patch.setattr(training, "validate", press)
        with pytest.raises(KeyboardInterrupt, match="--resume"):
            training.train(config)
    assert not (config.out / "validation.jsonl").exists()
    saved = read_checkpoint(config.out / "last.pt")
    assert (saved["iteration"], saved["validated"]) == (3, 0)
    training.train(config, resume=True)
    assert_same_runs(whole, config.out)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGHUP, 0), (signal.SIGTERM, 0)]
)
def test_a_signal_saves_the_last_iteration_and_ends_the_loaders_processes(
    tree, tmp_path, number, status
):
    out, errors = tmp_path / "run", tmp_path / "errors"
    command = ["train", "--data", tree, "--out", out, *ENDLESS, "--num-workers", 2]
    process = start(command, errors=errors)
    wait_for((out / "validation.jsonl").exists, process)
    workers = children_of(process.pid)
    assert len(workers) == 2
    for pid in (process.pid, *workers):  # a terminal and a scheduler signal all of them
        os.kill(pid, number)
    finish(process, status)
    assert not any(map(is_running, workers))
    done = read_checkpoint(out / "last.pt")["iteration"]
    assert done == len((out / "metrics.jsonl").read_text().splitlines()) > 0
    if number == signal.SIGINT:
        assert the_line(errors).startswith("interrupted; `train --resume` goes on")


def test_a_killed_worker_process_ends_training_in_one_line_and_costs_no_iteration(tree, tmp_path):
    out, errors = tmp_path / "run", tmp_path / "errors"
    command = ["train", "--data", tree, "--out", out, *ENDLESS, "--num-workers", 2]
    process = start(command, errors=errors)
    wait_for((out / "validation.jsonl").exists, process)
    workers = children_of(process.pid)
    os.kill(workers[0], signal.SIGKILL)
    finish(process, 2)
    assert re.match("--num-workers: one of the .* was killed", the_line(errors))
    assert not any(map(is_running, workers))
    done = read_checkpoint(out / "last.pt")["iteration"]
    assert done == len((out / "metrics.jsonl").read_text().splitlines()) > 0


def test_any_error_ends_the_loaders_processes(config, monkeypatch):
    def fail():
        assert len(multiprocessing.active_children()) == 2 + before
        raise RuntimeError("a fault")

    before = len(multiprocessing.active_children())
    monkeypatch.setattr(training, "train_one_step", at_iteration(2, fail))
    with pytest.raises(RuntimeError, match="a fault"):
        training.train(dataclasses.replace(config, num_workers=2))
    assert len(multiprocessing.active_children()) == before
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 2


# Several processes.


def test_what_one_process_cannot_read_is_saved_by_all_and_said_by_one(tmp_path):
    settings = {**SETTINGS, "batch_size": 4, "eval_every": 0, "iterations": 6, "seed": 1}
    data = write_tree(tmp_path / "data")
    order = list(TrainingOrder(6, 4, start=0, stop=6, seed=1, augment=True))
    seen = [[draw.index for draw in draws] for draws in order]
    # The second process has the second half of a batch; all of them look at the first image.
    first, index = next(
        (k, i) for k in range(1, 6) for i in seen[k][2:] if i not in sum(seen[:k], [0])
    )
    image = sorted((data / "leftImg8bit/train").rglob("*.png"))[index]
    content = image.read_bytes()

    def run(name, status, *more):
        command = ["train", "--out", tmp_path / name, *more]
        folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
        processes = []
        for rank, environment in enumerate(environments()):
            file = folder / str(rank) / "error.json"
            file.parent.mkdir(parents=True)
            shared = {**environment, "TORCHELASTIC_ERROR_FILE": str(file)}
            processes.append(start(command, shared, folder / f"errors{rank}"))
        for process, expected in zip(processes, status, strict=True):
            finish(process, expected)
        return folder

    given = ["--data", data, *as_flags(settings)]
    run("whole", (0, 0), *given)
    image.write_bytes(content[:120])
    folder = run("run", (1, 2), *given)
    assert image.name in the_line(folder / "errors1")
    assert "error" not in (folder / "errors0").read_text()
    assert read_checkpoint(tmp_path / "run/last.pt")["iteration"] == first
    image.write_bytes(content)
    run("run", (0, 0), "--resume")
    assert_same_runs(tmp_path / "whole", tmp_path / "run")


def test_under_torchrun_an_error_of_all_processes_is_printed_once(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node=2", "-m", "examples.cityscapes", "train"]
    result = subprocess.run(  # noqa: S603
        [*command, "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert lines[0].endswith("nowhere: no such folder")


# A full disk.


def test_a_full_disk_leaves_the_former_checkpoint_and_no_part_of_another(tmp_path):
    path = tmp_path / "last.pt"
    save_checkpoint(path, {"weights": torch.zeros(3)})
    (tmp_path / "last.pt.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match=re.escape(str(path))) as caught:
        save_checkpoint(path, {"weights": torch.ones(10**6)})
    assert caught.value.errno == errno.ENOSPC
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]
    assert_same(read_checkpoint(path), {"weights": torch.zeros(3)})


def test_training_on_a_full_disk_names_the_checkpoint_and_keeps_the_former_one(
    config, capsys, monkeypatch
):
    def spoil():
        (config.out / "last.pt.partial").symlink_to("/dev/full")

    monkeypatch.setattr(training, "train_one_step", at_iteration(3, spoil))
    settings = {**SETTINGS, "checkpoint_every": 2, "eval_every": 0}
    words = ["train", "--data", config.data, "--out", config.out, *as_flags(settings)]
    assert main([str(word) for word in words]) == 2
    line = the_line(capsys.readouterr().err)
    assert line.startswith(f"{config.out / 'last.pt'}: no space left on the disk")
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 2
    assert not list(config.out.glob("*.partial"))


def test_a_log_on_a_full_disk_is_named_and_its_iterations_are_not_left_out(config, monkeypatch):
    def spoil():
        (config.out / "metrics.jsonl").unlink()
        (config.out / "metrics.jsonl").symlink_to("/dev/full")

    monkeypatch.setattr(training, "train_one_step", at_iteration(4, spoil))
    with pytest.raises(OSError, match=r"No space left on device: '.*metrics\.jsonl'"):
        training.train(dataclasses.replace(config, checkpoint_every=2, eval_every=0))
    assert read_checkpoint(config.out / "last.pt")["iteration"] == 4


@pytest.mark.parametrize("command", ["prepare", "synthesize"])
def test_a_folder_on_a_full_disk_names_the_file_and_leaves_nothing(
    tree, tmp_path, capsys, monkeypatch, command
):
    def full(*args, **options):
        raise OSError("2000000 requested and 786416 written")  # as NumPy says it

    out = tmp_path / "out"
    monkeypatch.setattr(shards.np, "save", full)
    monkeypatch.setattr("PIL.Image.Image.save", full)
    words = {
        "prepare": ["--data", str(tree), "--size", "16x32", "--workers", "1"],
        "synthesize": ["--train", "1", "--val", "1", "--size", "64x128"],
    }
    assert main([command, "--out", str(out), *words[command]]) == 2
    line = the_line(re.sub(r".*scene/s\]", "", capsys.readouterr().err))
    assert re.search(r"(/image\.npy|_leftImg8bit\.png): no space left on the disk", line)
    assert not [path for path in tmp_path.rglob("*") if ".partial" in path.name]


# Memory and Ctrl-C.


def not_enough_memory():
    torch.empty(10**17, dtype=torch.uint8)


def test_an_allocation_that_fails_says_what_needs_less(tree, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(training, "train_one_step", at_iteration(1, not_enough_memory))
    words = ["train", "--data", tree, "--out", tmp_path / "run", *as_flags(SETTINGS)]
    assert main([str(word) for word in words]) == 2
    assert the_line(capsys.readouterr().err) == "needs more memory; try a smaller --batch-size"


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Caught MemoryError in DataLoader worker process 0."),
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1_2>"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_every_kind_of_full_memory_is_known(error):
    ending = ending_of(error, interrupted="", less_memory="try less")
    assert ending == ("needs more memory; try less", 2)


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_is_one_line_that_fits_the_command(command, capsys, monkeypatch, tmp_path):
    def press(**options):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"{COMMANDS[command].module}.run", press)
    flags = {"train": [], "predict": ["--run", "a", "--image", "b"], "report": ["--run", "a"]}
    flags["evaluate"] = ["--run", "a", "--data", "b"]
    flags["prepare"] = flags["check"] = ["--data", "b"]
    flags["export"] = ["--run", "a"]
    out = [] if command in ("check", "evaluate", "report") else ["--out", str(tmp_path)]
    assert main([command, *flags.get(command, []), *out]) == 130
    line = the_line(capsys.readouterr().err)
    assert line.startswith("interrupted")
    assert "--resume" not in line  # training adds it when there is something to resume


@pytest.mark.usefixtures("heeded_interrupt")
def test_ctrl_c_while_torch_is_imported_is_one_line(tmp_path):
    module = tmp_path / "torch.py"
    module.write_text(
        "from pathlib import Path\nimport time\n"
        "Path(__file__).with_name('begun').touch()\ntime.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "examples.cityscapes", "predict", "--help"],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{REPOSITORY}"},
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for((tmp_path / "begun").exists, process)
    process.send_signal(signal.SIGINT)
    _, printed = process.communicate()
    assert (printed, process.returncode) == ("error: interrupted\n", 130)


@pytest.mark.usefixtures("heeded_interrupt")
def test_ctrl_c_while_processes_prepare_is_one_line(tmp_path):
    write_tree(tmp_path / "data", train=40)
    words = ["--data", "data", "--out", "out", "--size", "16x32", "--workers", "2"]
    script = (
        "import sys\nfrom examples.cityscapes.data import prepare\n"
        "from examples.cityscapes.__main__ import main\n"
        "if __name__ == '__main__':\n"
        "    prepare.frames_per_shard = lambda size: 10\n"
        "    sys.exit(main(['prepare', *sys.argv[1:]]))\n"
    )
    (tmp_path / "program.py").write_text(script)
    process = subprocess.Popen(  # noqa: S603
        [sys.executable, "program.py", *words],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    # Its two processes, which import torch for seconds, and one that cleans up after them.
    wait_for(lambda: len(children_of(process.pid)) >= 3, process)
    os.killpg(process.pid, signal.SIGINT)
    _, printed = process.communicate()
    assert printed == "error: interrupted; the same command goes on where it was\n"
    assert process.returncode == 130
    assert not list((tmp_path / "out").rglob("*.partial"))
