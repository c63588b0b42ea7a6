"""Training, from top to bottom: `train`, its loop, one step, one look at the validation split."""

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any, NamedTuple

import torch

from examples.cityscapes.config import TrainConfig, new_config, resume_config
from examples.cityscapes.data import dataset as data
from examples.cityscapes.data.dataset import Batch, CityscapesDataset
from examples.cityscapes.data.order import in_order
from examples.cityscapes.flags import add_config_flags
from examples.cityscapes.model.start import backbone_state, initial_model
from examples.cityscapes.training.board import Board, open_board, progress_bar, show_progress
from examples.cityscapes.training.distributed import (
    Ranks,
    gradients_stay_here,
    images_per_part,
    joined_ranks,
)
from examples.cityscapes.training.loaders import load, training_data, validation_data, with_files
from examples.cityscapes.training.log import MetricLog, append_lines
from examples.cityscapes.training.measured import measure_part, measurements
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
    scheduled_rate,
    set_training_mode,
    snapshot,
)
from examples.cityscapes.training.validation import validate
from examples.common.checkpoint import save_checkpoint
from examples.common.errors import InputError, NonFiniteLossError
from examples.common.interrupt import catch_sigterm
from examples.common.lock import locked


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
            found, weights = backbone_state(config.backbone, config.backbone_weights)
            config = dataclasses.replace(config, backbone_weights=found)
        state = build_state(initial_model(config, dataset, weights), config, ranks)
        progress = restore(checkpoint, state, dataset.frames, ranks) if resume else Progress()
        check_not_beyond(config, progress)
        ranks.wait()  # all have looked at the folder; from here on it is written to

        if ranks.is_main:
            prepare_run_folder(config, progress.iteration)
        with open_board(config, progress.iteration, ranks) as board:
            path = config.out / "metrics.jsonl" if ranks.is_main else None
            log = MetricLog(path, listeners=(board.add_lines,) if board else ())
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
                raise with_files(error, run.config, run.dataset) from None
            progress = progress._replace(iteration=done)
            show_progress(bar, run.log, config.batch_size)
            if should_validate and run.val is not None:
                progress = validate_and_save_best(progress, run, run.val)
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
            targets, masks = batch.targets(), batch.masks()
            losses, predictions = state.module(batch.image, targets, masks)
            (losses.total / config.accumulate).backward()
        measured.append(measure_part(state.loss_fn, losses, predictions, targets, masks))

    plain = {"iteration": iteration, "learning_rate": learning_rate}
    # Now, as the step below changes sigma. Tensors, no `.item()`: reading one makes the GPU wait.
    log.add(plain, measurements(state, measured))
    for optimizer in state.optimizers:
        optimizer.step()


def validate_and_save_best(progress: Progress, run: Run, val: CityscapesDataset) -> Progress:
    """Validate, keep the checkpoint if it is the best so far, and show a picture."""
    ranks, model = run.ranks, run.state.model
    shares = in_order(val, images_per_part(run.config, ranks))[ranks.index :: ranks.count]
    batches = data.batches(val, shares, run.config.tasks, device=ranks.device)
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
        image = val.read(0).image.unsqueeze(0)
        with torch.no_grad():
            maps = model(image.to(ranks.device))
        run.board.add_validation(progress.iteration, figures, image, maps)
    set_training_mode(run.state, run.config)
    return progress


def save(progress: Progress, run: Run, name: str) -> None:
    """Write a checkpoint; every process has to call this, as each adds its random state."""
    contents = snapshot(run.state, progress, run.config, run.dataset.frames, run.ranks)
    if run.ranks.is_main:
        save_checkpoint(run.config.out / name, contents)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: one for every field of `TrainConfig`."""
    # What is not given is left to the preset, or, on resuming, to the recorded run.
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    add_config_flags(add)


def run(resume: bool = False, **given: Any) -> None:
    """Train a network."""
    if "out" not in given:
        raise InputError("--out: needed, the folder of the run")
    if not resume and "data" not in given:
        raise InputError("--data: needed, unless a run is resumed")
    with locked(given["out"]):
        train(resume_config(given["out"], given) if resume else new_config(given), resume=resume)
