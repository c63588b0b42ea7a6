"""The trainer's time per iteration, against the bare network on a ready batch."""

import contextlib
import io
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.result_file import Goal, Report, Table
from benchmarks.run_settings import Settings
from benchmarks.scene_trees import prepared_tree, raw_tree
from benchmarks.timing import Timings, duration, take_turns
from examples.cityscapes.config import TrainConfig, new_config
from examples.cityscapes.data.dataset import Batch
from examples.cityscapes.labels import IGNORE_INDEX
from examples.cityscapes.model.start import initial_model
from examples.cityscapes.training import train as trainer
from examples.cityscapes.training.board import progress_bar, show_progress
from examples.cityscapes.training.distributed import Ranks
from examples.cityscapes.training.loaders import load, training_data
from examples.cityscapes.training.log import MetricLog
from examples.cityscapes.training.state import build_state, set_training_mode

THREADS = None

TRAINER, BY_HAND, BARE = "trainer", "by hand, plain losses", "bare network"
LOSS, DATA = "loss alone", "data alone"
CASES: dict[str, dict[str, object]] = {
    "kept in memory": {"cache_mb": 512},
    "prepared files": {"cache_mb": 0},
    "kept in memory, bf16": {"cache_mb": 512, "precision": "bf16"},
}
"""Settings that change what a step waits for; the last one is for GPUs."""


class TimedRun:
    """A training that goes on step by step, and the same network without all that surrounds it."""

    def __init__(self, config: TrainConfig, ranks: Ranks) -> None:
        config.out.mkdir(parents=True, exist_ok=True)
        self.config = config
        dataset = training_data(config)
        self.state = build_state(initial_model(config, dataset, None), config, ranks)
        set_training_mode(self.state, config)
        self.batches = load(config, dataset, 0, ranks)
        self.log = MetricLog(config.out / "metrics.jsonl")
        with contextlib.redirect_stderr(io.StringIO()):
            self.bar = progress_bar(config, 0, ranks)
        self.iteration = 0

        self.batch: Batch = next(self.batches)
        self.predictions = {
            task: output.detach().requires_grad_()
            for task, output in self.state.model(self.batch.image).items()
        }
        # A missing disparity is nan, and a loss on the whole map would train on it.
        self.targets, self.masks = self.batch.targets(), self.batch.masks()
        self.whole_depth = self.targets["depth"].nan_to_num()
        self.loss_alone()
        self.gradients = [output.grad.clone() for output in self.predictions.values()]

    def step(self) -> None:
        """Train for one iteration, as the trainer's own loop does."""
        parts = islice(self.batches, self.config.accumulate)
        trainer.train_one_step(self.state, parts, self.config, self.iteration, self.log)
        show_progress(self.bar, self.log, self.config.batch_size)
        self.iteration += 1

    def bare_step(self) -> None:
        """Forward, backward and the network's optimizer on a ready batch, without any loss."""
        optimizer = self.state.optimizers[0]
        optimizer.zero_grad(set_to_none=True)
        outputs = self.state.model(self.batch.image)
        torch.autograd.backward(list(outputs.values()), self.gradients)
        optimizer.step()

    def step_by_hand(self) -> None:
        """The step that one writes without a library: a plain sum of PyTorch's losses."""
        optimizer = self.state.optimizers[0]
        optimizer.zero_grad(set_to_none=True)
        outputs, targets = self.state.model(self.batch.image), self.targets
        loss = F.cross_entropy(outputs["semantic"], targets["semantic"], ignore_index=IGNORE_INDEX)
        # On whole maps, unlabelled pixels included: to leave them out costs more.
        loss = loss + F.l1_loss(outputs["instance"], targets["instance"])
        loss = loss + F.l1_loss(outputs["depth"], self.whole_depth)
        loss.backward()
        optimizer.step()

    def loss_alone(self) -> None:
        """Forward and backward of the loss on ready predictions."""
        for output in self.predictions.values():
            output.grad = None
        losses = self.state.loss_fn(self.predictions, self.targets, self.masks)
        losses.total.backward()

    def data_alone(self) -> None:
        """Wait for the next batch."""
        next(self.batches)


def run(settings: Settings) -> Report:
    """Measure with the data in memory and in prepared files."""
    rounds = settings.rounds(30, 3)
    ratios, goals = [], []
    with settings.folder("training_step") as folder:
        for number, (feed, more) in enumerate(CASES.items()):
            if "precision" in more and settings.device.type == "cpu":
                continue
            config = make_config(settings, folder, out=folder / f"run{number}", **more)
            running = TimedRun(config, Ranks(settings.device))
            timings = measure(running, settings, rounds)
            ratios += [
                [
                    feed,
                    name,
                    timings.ratio(name, BARE),
                    timings.ratio(name, BY_HAND),
                    duration(timings.median(name)),
                ]
                for name in timings.seconds
            ]
            goals += [
                Goal(f"{TRAINER} over {peer}, {feed}", 1.03, timings.ratio(TRAINER, peer).median)
                for peer in (BARE, BY_HAND)
            ]
    about = (
        f"Preset `{config.preset}` with {config.backbone} at {config.size[0]}x{config.size[1]}, "
        f"batches of {config.batch_size}, three tasks, on generated scenes. The trainer's step is "
        "everything in its loop: waiting for the batch, forward, loss, backward, measuring, both "
        "optimizers, metrics.jsonl and the progress bar. The bare network's is forward, backward "
        "from ready gradients of its outputs, and its optimizer: no loss at all. The step by hand "
        "has a plain sum of `F.cross_entropy` and `F.l1_loss` on a ready batch. The loss alone is "
        f"forward and backward on ready predictions. Medians of {rounds} paired rounds with the "
        "range of the middle 80%; three calls before."
    )
    return Report(
        "One training step",
        about,
        [
            Table(
                "Ratios",
                ["data", "what", "over the bare network", "over the step by hand", "per call"],
                ratios,
            ),
        ],
        goals,
    )


def make_config(settings: Settings, folder: Path, **more: object) -> TrainConfig:
    """Return a configuration whose network stays as it is: the same work in every step."""
    on_gpu = settings.device.type == "cuda"
    # At the paper's size; two cores would take half a minute over a step of its network.
    preset, size = "tiny" if on_gpu else "demo", settings.choose((128, 256), (64, 128), (32, 64))
    if on_gpu:
        more["backbone"] = "resnet50"
    if settings.effort == "smoke":
        more |= {"stages": 1, "aspp_channels": 4, "decoder_channels": 4}
    raw = settings.data or raw_tree(
        folder, train=settings.choose(256, 48, 16), size=size, seed=settings.seed
    )
    return new_config(
        {
            "preset": preset,
            "data": prepared_tree(folder, raw, size),
            "size": size,
            "backbone_weights": "none",
            "learning_rate": 1e-12,
            "sigma_lr": 1e-12,
            "iterations": 10**9,
            "eval_every": 0,
            "tensorboard": False,
            "device": settings.device.type,
            "num_workers": 2 if on_gpu else 0,
            "seed": settings.seed,
            **more,
        }
    )


def measure(running: TimedRun, settings: Settings, rounds: int) -> Timings:
    """Time the trainer, the bare network, and what differs between them."""
    return take_turns(
        {
            TRAINER: running.step,
            BY_HAND: running.step_by_hand,
            BARE: running.bare_step,
            LOSS: running.loss_alone,
            DATA: running.data_alone,
        },
        rounds=rounds,
        seed=settings.seed,
        # Long enough for a turn to hold some of the log's writes, one in 20 steps.
        min_seconds=settings.choose(1.0, 0.2, 0.0),
        synchronize=settings.synchronize,
    )
