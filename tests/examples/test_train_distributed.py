"""Two processes, as `torchrun` starts them, against one with the same batch."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.order import TrainingOrder
from examples.cityscapes.training.distributed import RankOrder, Ranks, images_per_part
from examples.cityscapes.training.log import read_log
from examples.cityscapes.training.train import train
from examples.common.checkpoint import read_checkpoint
from examples.common.errors import InputError
from tests.examples.tiny_run import TINY, as_flags, finish, start
from tests.examples.tiny_tree import write_tree

REPOSITORY = Path(__file__).parents[2]
# Batch norm frozen: on a CPU each process would normalise by its own half.
SETTINGS = {
    **TINY,
    "batch_size": 4,
    "iterations": 5,
    "eval_every": 5,
    "freeze_batch_norm": True,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("data"), val=3)


def environments():
    """Return what `torchrun` sets for each of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [{**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]


@pytest.mark.parametrize(
    "more",
    [
        {"accumulate": 2, "sigma_init": "data"},
        {"estimator": "closed_form", "constraint": "unit_sum"},
        {"weighting": "fixed:1,0.5,2"},
        {"depth_noise": "per-pixel", "form": "nll"},
    ],
    ids=["learned", "closed_form", "fixed", "per-pixel"],
)
def test_two_processes_end_with_the_weights_of_one_with_the_same_batch(tree, tmp_path, more):
    settings = {**SETTINGS, **more}
    arguments = ["train", "--data", tree, "--out", tmp_path / "two", *as_flags(settings)]
    processes = [start(arguments, environment) for environment in environments()]
    train(TrainConfig(data=tree, out=tmp_path / "one", **settings))
    for process in processes:
        finish(process)
    one, two = (read_checkpoint(tmp_path / name / "last.pt") for name in ("one", "two"))
    for part in ("model", "loss"):
        assert one[part].keys() == two[part].keys()
        for name, expected in one[part].items():
            torch.testing.assert_close(
                two[part][name], expected, rtol=1e-4, atol=1e-4, equal_nan=True
            )
    assert len(one["rng"]["cpu"]) == 1
    assert len(two["rng"]["cpu"]) == 2

    for name in ("metrics.jsonl", "validation.jsonl"):
        lines = [read_log(tmp_path / run / name) for run in ("one", "two")]
        for expected, found in zip(*lines, strict=True):
            assert found.keys() == expected.keys()
            for quantity, value in expected.items():
                assert found[quantity] == pytest.approx(value, rel=1e-3, abs=1e-5), quantity


def test_torchrun_trains_and_resumes_on_two_processes(tree, tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*launcher, "--nproc-per-node=2", "-m", "examples.cityscapes", "train"]
    flags = ["--data", tree, "--out", tmp_path / "run", *as_flags({**SETTINGS, "iterations": 2})]
    result = subprocess.run(  # noqa: S603
        [*map(str, command + flags)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "UserWarning" not in result.stderr
    resumed = ["train", "--out", tmp_path / "run", "--resume", "--iterations", 4]
    for process in [start(resumed, environment) for environment in environments()]:
        finish(process)
    lines = read_log(tmp_path / "run" / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == list(range(4))


def test_a_batch_that_two_processes_cannot_share_is_refused():
    def images(batch_size, device="cpu", **more):
        config = TrainConfig(data=Path(), out=Path(), batch_size=batch_size, **more)
        return images_per_part(config, Ranks(torch.device(device), 0, 2))

    assert images(8, accumulate=2) == 2
    with pytest.raises(InputError, match="3 images cannot be shared equally by 2 processes"):
        images(3)
    with pytest.raises(InputError, match="leaves each of 2 processes one image"):
        images(2)
    assert images(2, freeze_batch_norm=True) == 1
    assert images(2, device="cuda") == 1  # batch norm sees the joined batch there


def test_the_shares_of_all_processes_are_the_batches_of_one_part_by_part():
    order = TrainingOrder(16, 8, start=0, stop=3, seed=0, augment=True)
    device = torch.device("cpu")
    shares = [list(RankOrder(order, 2, 2, Ranks(device, index, 2))) for index in range(2)]
    assert [len(share) for share in shares] == [6, 6]
    alone = list(RankOrder(order, 2, 4, Ranks(device)))
    assert [first + second for first, second in zip(*shares, strict=True)] == alone
    assert [alone[2 * i] + alone[2 * i + 1] for i in range(3)] == list(order)
