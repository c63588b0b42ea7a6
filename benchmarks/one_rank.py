"""One of the processes that `scaling` starts under torchrun; the first prints its time."""

import sys
import time
from pathlib import Path

import torch

from benchmarks.training_step import TimedRun
from examples.cityscapes.config import load_config
from examples.cityscapes.training.distributed import joined_ranks


def main(folder: Path, steps: int) -> None:
    """Train with the configuration in a folder; prints the seconds per iteration."""
    config = load_config(folder)
    with joined_ranks(config.device) as ranks:
        running = TimedRun(config, ranks)
        for _ in range(3):
            running.step()
        synchronize = torch.cuda.synchronize if ranks.device.type == "cuda" else ranks.wait
        synchronize()
        start = time.perf_counter()
        for _ in range(steps):
            running.step()
        synchronize()
        if ranks.is_main:
            print((time.perf_counter() - start) / steps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
