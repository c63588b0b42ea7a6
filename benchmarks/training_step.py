"""The trainer's time per iteration, against the bare network on a ready batch."""

import contextlib
import io
from collections.abc import Callable
from itertools import count, islice
from pathlib import Path

import torch

from benchmarks.result_file import Report, Table
from benchmarks.run_settings import Settings
from benchmarks.scene_trees import generated_scenes, prepared
from benchmarks.timing import WARM_UP, take_turns
from examples.cityscapes.config import TrainConfig, new_config
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.training.board import progress_bar, show_progress
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.loaders import load, training_data
from examples.cityscapes.training.log import MetricLog
from examples.cityscapes.training.state import build_state, set_training_mode
from examples.cityscapes.training.train import train_one_step

TRAINER, BARE = "trainer", "bare network"


def run(settings: Settings) -> Report:
    """Measure with the data in memory and in prepared files, and on a GPU also in bfloat16."""
    rounds = settings.repeats or settings.choose(30, 3, 2)
    # A turn should hold some writes of the log, which happen once in 20 steps.
    seconds = settings.choose(1.0, 0.2, 0.0)
    cases = {"kept in memory": {"cache_mb": 512}, "prepared files": {"cache_mb": 0}}
    if settings.device.type == "cuda":
        cases["kept in memory, bf16"] = {"cache_mb": 512, "precision": "bf16"}
    rows = []
    with settings.folder("training_step") as folder:
        for number, (data, options) in enumerate(cases.items()):
            config = make_config(settings, folder, out=folder / f"run{number}", **options)
            calls = steps(config, Ranks(settings.device))
            timings = take_turns(calls, settings, rounds=rounds, seconds=seconds)
            ratio = timings.ratio(TRAINER, BARE)
            rows.append([data, ratio, timings.per_call(TRAINER), timings.per_call(BARE)])
    about = (
        f"Preset `{config.preset}` with {config.backbone} at {config.size[0]}x{config.size[1]}, "
        f"batches of {config.batch_size}, three tasks, on "
        f"{'CityScapes' if settings.data else 'generated scenes'}. The trainer's step is "
        "everything in its loop: waiting for the batch, forward, loss, backward, measuring, both "
        "optimizers, metrics.jsonl and the progress bar. The bare network's step is forward, "
        "backward from ready gradients of its outputs, and its optimizer, on a ready batch and "
        f"without a loss. Medians of {rounds} paired rounds with the range of the middle 80%, "
        f"after {WARM_UP} steps to warm up."
    )
    columns = ["data", f"{TRAINER} over {BARE}", f"{TRAINER}, per step", f"{BARE}, per step"]
    return Report("One training step", about, [Table("Ratios", columns, rows)])


def steps(config: TrainConfig, ranks: Ranks) -> dict[str, Callable[[], None]]:
    """Return an iteration of the trainer's loop, and one of its network without the rest."""
    config.out.mkdir(parents=True, exist_ok=True)
    dataset = training_data(config)
    state = build_state(initial_model(config, dataset, None), config, ranks)
    set_training_mode(state, config)
    batches = load(config, dataset, 0, ranks)
    log = MetricLog(config.out / "metrics.jsonl")
    with contextlib.redirect_stderr(io.StringIO()):
        bar = progress_bar(config, 0, ranks)
    iterations = count()

    def trainer_step() -> None:
        parts = islice(batches, config.accumulate)
        train_one_step(state, parts, config, next(iterations), log)
        show_progress(bar, log, config.batch_size)

    batch, optimizer = next(batches), state.optimizers[0]
    outputs = state.model(batch.image)
    losses = state.loss_fn(outputs, batch.targets(), batch.masks())
    gradients = torch.autograd.grad(losses.total, list(outputs.values()))

    def bare_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(list(state.model(batch.image).values()), gradients)
        optimizer.step()

    return {TRAINER: trainer_step, BARE: bare_step}


def make_config(settings: Settings, folder: Path, **options: object) -> TrainConfig:
    """Return a configuration whose network hardly changes, so that every step is the same work."""
    size = settings.choose((128, 256), (64, 128), (32, 64))
    if settings.data is None:
        num_train = settings.choose(256, 48, 16)
        data = generated_scenes(folder, train=num_train, size=size, seed=settings.seed)
    else:
        data = prepared(folder, settings.data, size)
    if settings.device.type == "cuda":  # two cores would take half a minute for this network's step
        options |= {"preset": "tiny", "backbone": "resnet50", "num_workers": 2}
    if settings.effort == "smoke":
        options |= {"stages": 1, "aspp_channels": 4, "decoder_channels": 4}
    return new_config(
        {
            "preset": "demo",
            "data": data,
            "size": size,
            "backbone_weights": "none",
            "learning_rate": 1e-12,
            "sigma_lr": 1e-12,
            "iterations": 10**9,
            "eval_every": 0,
            "tensorboard": False,
            "device": settings.device.type,
            "num_workers": 0,
            "seed": settings.seed,
            **options,
        }
    )
