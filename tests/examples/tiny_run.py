"""A training run that takes a second, and how to compare two of them, for tests."""

import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NoReturn

import torch

from examples.cityscapes.__main__ import main
from examples.cityscapes.training.log import read_log
from examples.common.checkpoint import read_checkpoint

TINY = {
    "size": (16, 32),
    "backbone": "resnet18",
    "backbone_weights": "none",
    "stages": 1,
    "output_stride": 4,
    "aspp_channels": 4,
    "aspp_rates": (1, 2),
    "decoder_channels": 4,
    "learning_rate": 0.01,
    "batch_size": 2,
    "iterations": 8,
    "eval_every": 0,
    "tensorboard": False,
    "device": "cpu",
    "num_workers": 0,
}


def as_flags(settings: dict[str, object]) -> list[str]:
    """Return settings as the command line takes them."""
    flags = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            items = value if isinstance(value, tuple) else (value,)
            flags += [flag, ("x" if name == "size" else ",").join(str(item) for item in items)]
    return flags


def start(
    arguments: list[object], environment: dict[str, str] | None = None, errors: Path | None = None
) -> BaseProcess:
    """Start `python -m examples.cityscapes` in a process of its own.

    A server that has imported torch once forks it: importing would take seconds every time.

    Args:
        arguments: Arguments of the command line.
        environment: Added to that of the tests.
        errors: The file for what it prints to stderr.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        [
            "examples.cityscapes.evaluation.evaluate",
            "examples.cityscapes.training.train",
            "torchmetrics.functional.classification",
        ]
    )
    process = context.Process(
        target=_command_line, args=([str(a) for a in arguments], environment or {}, errors)
    )
    process.start()
    return process


def finish(process: BaseProcess, status: int = 0) -> None:
    """Wait for a process and check its exit status."""
    process.join(timeout=120)
    assert process.exitcode == status


def _command_line(
    arguments: list[str], environment: dict[str, str], errors: Path | None
) -> NoReturn:
    # A shell starts its background jobs deaf to Ctrl-C, and their children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    if errors is not None:
        with errors.open("w") as file:
            os.dup2(file.fileno(), sys.stderr.fileno())
    torch.set_num_threads(1)
    # The server's way of starting processes would import torch in each of them, for seconds.
    multiprocessing.set_start_method("fork", force=True)
    sys.exit(main(arguments))


def assert_same(one: object, other: object) -> None:
    """Compare nested dicts and lists of tensors, bit by bit."""
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            assert_same(first, second)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def assert_same_runs(one: Path, other: Path) -> None:
    """Compare all that two runs have left, bit by bit."""
    assert sorted(p.name for p in one.iterdir()) == sorted(p.name for p in other.iterdir())
    for path in one.glob("*.pt"):
        assert_same(read_checkpoint(path), read_checkpoint(other / path.name))
    for path in one.glob("*.jsonl"):
        assert_same(read_log(path), read_log(other / path.name))
