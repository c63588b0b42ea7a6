"""Training, from top to bottom: `train`, its loop, one step, one look at the validation split."""

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from examples.cityscapes.config import TrainConfig, new_config, resume_config
from examples.cityscapes.data import dataset as data
from examples.cityscapes.data.dataset import Batch, CityscapesDataset, in_order
from examples.cityscapes.flags import add_config_flags
from examples.cityscapes.model.network import Output
from examples.cityscapes.model.start import backbone_state, initial_model
from examples.cityscapes.training.board import Board, open_board, progress_bar, show_progress
from examples.cityscapes.training.distributed import (
    Ranks,
    gradients_stay_here,
    images_per_part,
    joined_ranks,
)
from examples.cityscapes.training.loaders import (
    load,
    training_data,
    training_order,
    validation_data,
)
from examples.cityscapes.training.log import MetricLog, append_lines
from examples.cityscapes.training.losses import errors_of_step, learned_sigmas, noise_of_step
from examples.cityscapes.training.run_folder import (
    check_not_beyond,
    check_run_folder,
    prepare_run_folder,
)
from examples.cityscapes.training.state import (
    Progress,
    TrainingState,
    build_state,
    restore,
    set_training_mode,
    snapshot,
)
from examples.cityscapes.training.validation import validate
from examples.common.checkpoint import save_checkpoint
from examples.common.errors import InputError, NonFiniteLossError
from examples.common.interrupt import catch_sigterm
from uncertainty_mtl import MultiTaskLoss
from uncertainty_mtl.functional import BaseLoss

ByTask = dict[str, Tensor]


class Run(NamedTuple):
    """What stays in place during training."""

    config: TrainConfig
    ranks: Ranks
    dataset: CityscapesDataset
    val: CityscapesDataset | None
    """None if the validation split is never looked at."""
    state: TrainingState
    log: MetricLog
    board: Board | None


def train(config: TrainConfig, *, resume: bool = False, deadline: float | None = None) -> int:
    """Train a network and leave config.json, metrics.jsonl, last.pt and more in `config.out`.

    Started by `torchrun`, every process calls this; the first of them writes.

    Args:
        config: What to train, on what, and where to.
        resume: Whether to go on from the last checkpoint in `config.out`.
        deadline: `time.monotonic()` after which training saves and stops early, as it does
            after SIGTERM.

    Returns:
        How many iterations the network has been trained for.

    Raises:
        InputError: Before anything is written, if an input is missing or broken.
        NonFiniteLossError: If a loss becomes infinite or nan; it names the images.
    """
    check_run_folder(config.out, resume)
    with joined_ranks(config.device) as ranks, catch_sigterm() as sigterm_came:
        torch.manual_seed(config.seed + ranks.index)
        dataset, val = training_data(config), validation_data(config)
        images_per_part(config, ranks)  # raises if the batch cannot be divided
        checkpoint = config.out / "last.pt"
        resume = resume and checkpoint.is_file()  # killed before its first one: from the start
        weights = None
        if not resume:  # a checkpoint holds the trunk's weights
            weights = backbone_state(config.backbone, config.backbone_weights)
            if weights is None:
                config = dataclasses.replace(config, backbone_weights="none")
        state = build_state(initial_model(config, dataset, weights), config, ranks)
        progress = restore(checkpoint, state, len(dataset), ranks) if resume else Progress()
        check_not_beyond(config, progress)
        ranks.wait()  # all have looked at the folder; from here on it is written to

        if ranks.is_main:
            prepare_run_folder(config, progress.iteration)
        with open_board(config, progress.iteration, ranks) as board:
            log = open_log(config, ranks, board)
            run = Run(config, ranks, dataset, val, state, log, board)

            def must_stop() -> bool:
                out_of_time = deadline is not None and time.monotonic() > deadline
                return ranks.any(out_of_time or sigterm_came())

            return train_from(progress, run, must_stop)


def train_from(progress: Progress, run: Run, must_stop: Callable[[], bool]) -> int:
    """Train to the last iteration, or until asked to stop; returns how far that was."""
    config = run.config
    batches = load(config, run.dataset, progress.iteration, run.ranks)
    set_training_mode(run.state, config)
    with progress_bar(config, progress.iteration, run.ranks) as bar:
        for iteration in range(progress.iteration, config.iterations):
            done = iteration + 1
            stop = is_to_save = should_validate = done == config.iterations
            try:
                train_one_step(
                    run.state, islice(batches, config.accumulate), config, iteration, run.log
                )
                stop |= must_stop()
                is_to_save |= stop or done % config.checkpoint_every == 0
                should_validate |= run.val is not None and done % config.eval_every == 0
                if is_to_save or should_validate:
                    run.log.flush()  # it raises if the weights are not worth saving
            except NonFiniteLossError as error:
                raise with_files(error, run) from None
            progress = progress._replace(iteration=done)
            show_progress(bar, run.log, config.batch_size)
            if should_validate and run.val is not None:
                progress = validate_and_save_best(progress, run)
            if is_to_save:
                save(progress, run, "last.pt")
            if stop:
                break
    return progress.iteration


def train_one_step(
    state: TrainingState,
    parts: Iterable[Batch],
    config: TrainConfig,
    iteration: int,
    log: MetricLog,
) -> None:
    """Take one optimizer step, on the parts of a batch one after another, and log it."""
    learning_rate = scheduled_rate(config, iteration)
    for group in state.optimizers[0].param_groups:
        group["lr"] = learning_rate
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)

    measured = []
    for index, batch in enumerate(parts):
        is_last = index == config.accumulate - 1
        with torch.enable_grad() if is_last else gradients_stay_here(state.module):
            losses, predictions = state.module(batch.image, batch.targets, batch.masks)
            (losses.total / config.accumulate).backward()
        measured.append(measure_part(state.loss_fn, losses, predictions, batch))

    plain = {"iteration": iteration, "learning_rate": learning_rate}
    # Now, as the step below changes sigma. Tensors, no `.item()`: reading one makes the GPU wait.
    log.add(plain, measurements(state, measured))
    for optimizer in state.optimizers:
        optimizer.step()


class Measured(NamedTuple):
    """What is logged of a part of a batch, by task."""

    errors: dict[str, BaseLoss]
    noise: dict[str, BaseLoss]
    """The sigmas of the pixels, for tasks whose noise the network predicts."""
    nll: ByTask


@torch.no_grad()
def measure_part(
    loss_fn: nn.Module, losses: MultiTaskLoss, predictions: dict[str, Output], batch: Batch
) -> Measured:
    """Return a part's errors and noise, over all processes, and its negative log-likelihoods."""
    return Measured(
        errors_of_step(losses, predictions, batch.targets, batch.masks),
        noise_of_step(loss_fn, predictions, batch.masks),
        {task: value.detach() for task, value in losses.tasks.items()},
    )


@torch.no_grad()
def measurements(state: TrainingState, parts: list[Measured]) -> dict[str, ByTask]:
    """Return what is logged of a step, by quantity and task."""
    errors = added([part.errors for part in parts])
    # The mean of no pixel is nan, for which the log has no number.
    noise = {
        task: torch.where(sigma.num_valid > 0, sigma.mean(), torch.nan)
        for task, sigma in added([part.noise for part in parts]).items()
    }
    gradients = [p.grad.norm() for p in state.model.parameters() if p.grad is not None]
    return {
        "loss": {task: error.mean() for task, error in errors.items()},
        "num_labelled": {task: error.num_valid for task, error in errors.items()},
        "nll": {task: torch.stack([part.nll[task] for part in parts]).mean() for task in errors},
        "sigma": learned_sigmas(state.loss_fn) | noise,
        "weight": state.loss_fn.weights() | {t: 2**0.5 / sigma for t, sigma in noise.items()},
        "gradient_norm": {"network": torch.stack(gradients).norm()},
    }


def added(parts: list[dict[str, BaseLoss]]) -> dict[str, BaseLoss]:
    """Return the sums over the parts of a batch, by task."""
    return {
        task: BaseLoss(
            torch.stack([part[task].summed for part in parts]).sum(0),
            torch.stack([part[task].num_valid for part in parts]).sum(0),
        )
        for task in parts[0]
    }


def scheduled_rate(config: TrainConfig, iteration: int) -> float:
    """Return the network's learning rate: a linear warm-up times the paper's decay."""
    warmup = min(1.0, (iteration + 1) / (config.warmup + 1))
    return config.learning_rate * warmup * (1 - iteration / config.iterations) ** 0.9


def validate_and_save_best(progress: Progress, run: Run) -> Progress:
    """Validate, keep the checkpoint if it is the best so far, and show a picture."""
    ranks, model = run.ranks, run.state.model
    shares = in_order(run.val, images_per_part(run.config, ranks))[ranks.index :: ranks.count]
    batches = data.batches(run.val, shares, run.config.tasks, device=ranks.device)
    figures = validate(model, batches, ranks)
    error = figures["selection_error"]
    is_best = error is not None and (progress.best is None or error < progress.best)
    if is_best:
        progress = progress._replace(best=error)
        save(progress, run, "best.pt")
    if ranks.is_main:
        line = {"iteration": progress.iteration, **figures, "is_best": is_best}
        append_lines(run.config.out / "validation.jsonl", [line])
    if run.board:
        image = run.val.read(0).image.unsqueeze(0)
        with torch.no_grad():
            maps = model(image.to(ranks.device))
        run.board.add_validation(progress.iteration, figures, image, maps)
    set_training_mode(run.state, run.config)
    return progress


def save(progress: Progress, run: Run, name: str) -> None:
    """Write a checkpoint; every process has to call this, as each adds its random state."""
    contents = snapshot(run.state, progress, run.config, len(run.dataset), run.ranks)
    if run.ranks.is_main:
        save_checkpoint(run.config.out / name, contents)


def open_log(config: TrainConfig, ranks: Ranks, board: Board | None) -> MetricLog:
    """Return the log of every iteration; only the first process writes it."""
    path = config.out / "metrics.jsonl" if ranks.is_main else None
    return MetricLog(path, listeners=(board.add_lines,) if board else ())


def with_files(error: NonFiniteLossError, run: Run) -> NonFiniteLossError:
    """Add the images of the batch, which follow from the iteration."""
    draws = next(iter(training_order(run.config, len(run.dataset), error.iteration)))
    names = ", ".join(run.dataset.frames[draw.index].image.name for draw in draws)
    return NonFiniteLossError(f"{error}; the images of that batch: {names}", error.iteration)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: one for every field of `TrainConfig`."""
    # What is not given is left to the preset, or, on resuming, to the recorded run.
    parser.argument_default = argparse.SUPPRESS
    text = "go on from the last checkpoint in --out"
    parser.add_argument("--resume", action="store_true", help=text)
    add_config_flags(parser.add_argument)


def run(resume: bool = False, **given: Any) -> None:
    """Train a network."""
    if "out" not in given:
        raise InputError("--out: needed, the folder of the run")
    if not resume and "data" not in given:
        raise InputError("--data: needed, unless a run is resumed")
    train(resume_config(given["out"], given) if resume else new_config(given), resume=resume)
