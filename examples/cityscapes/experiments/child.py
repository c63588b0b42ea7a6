"""One run, in a process of its own: train or resume it, measure it, and write figures.json."""

import dataclasses
import json
import multiprocessing
import os
import platform
import signal
import sys
import threading
import time
from typing import Any

import torch

from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.evaluation.evaluate import load_trained, measure
from examples.cityscapes.evaluation.predictors import by_network, open_kept
from examples.cityscapes.experiments.recipe import processor
from examples.cityscapes.training.train import train
from examples.common.checkpoint import write_atomically
from examples.common.command_line import complain
from examples.common.device import pick_device
from examples.common.endings import ending_of
from examples.common.lock import locked


def run_one(config: TrainConfig, num_threads: int) -> None:
    """Train a run, from wherever it has got to, and measure it; its output goes to its log.txt."""
    # A terminal sends Ctrl-C to all of its processes. Only the parent should react: it sends us
    # SIGTERM, on which training saves. So this process and its training ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(num_threads)
    config.out.mkdir(parents=True, exist_ok=True)
    with (config.out / "log.txt").open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        # The child of a killed parent may still be saving.
        with locked(config.out, wait=True):
            train_and_measure(config)
    except Exception as error:
        ending = ending_of(error, interrupted="", less_memory="try a smaller --batch-size")
        if ending is None:
            raise
        sys.exit(complain(ending))


def train_and_measure(config: TrainConfig) -> None:
    """Train to the last iteration and write figures.json; exits if asked to stop before."""
    started, resume = time.monotonic(), (config.out / "config.json").exists()
    if resume:  # its trunk may have started without the weights that were asked for
        recorded = load_config(config.out)
        config = dataclasses.replace(config, backbone_weights=recorded.backbone_weights)
    done = train(config, resume=resume)
    if done < config.iterations:
        sys.exit(f"stopped after {done} of {config.iterations} iterations")
    device = pick_device(config.device)
    val = open_kept(config, config.data, "val")
    figures = measure(val, config.tasks, by_network(load_trained(config), device))
    result = {
        "figures": figures,
        "num_images": len(val),
        # The time of a run that was interrupted is not known.
        "seconds": None if resume else round(time.monotonic() - started, 1),
        "setup": setup(device),
    }
    write_atomically(config.out / "figures.json", json.dumps(result, indent=2) + "\n")


def setup(device: torch.device) -> dict[str, Any]:
    """Return what a run's figures and speed may depend on beside its settings."""
    return {
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
