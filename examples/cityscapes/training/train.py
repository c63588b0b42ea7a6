"""Training, from top to bottom: `train`, its loop, one step, one look at the validation split."""

import argparse
import signal
from collections.abc import Iterable
from contextlib import closing, nullcontext
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, cast

import torch

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data import dataset as data
from examples.cityscapes.data.dataset import Batch, CityscapesDataset
from examples.cityscapes.data.order import in_order
from examples.cityscapes.evaluation.metrics import predict_maps
from examples.cityscapes.flags import add_config_flags
from examples.cityscapes.model.start import initial_model, start_model
from examples.cityscapes.training import run_folder
from examples.cityscapes.training.asked_config import asked_config
from examples.cityscapes.training.board import open_board, progress_bar, show_progress
from examples.cityscapes.training.distributed import (
    gradients_stay_here,
    images_per_part,
    joined_ranks,
)
from examples.cityscapes.training.loaders import load, training_data, validation_data, with_files
from examples.cityscapes.training.log import MetricLog, append_lines
from examples.cityscapes.training.losses import draw_weights
from examples.cityscapes.training.measured import measure_part, measurements
from examples.cityscapes.training.saving import Run, is_to_save, save, save_and_stop
from examples.cityscapes.training.state import (
    Progress,
    TrainingState,
    build_state,
    clip_gradient,
    restore,
    scheduled_rate,
    set_training_mode,
)
from examples.cityscapes.training.validation import is_due, validate
from examples.common.errors import NonFiniteLossError
from examples.common.interrupt import TERMINATIONS, noted_signals
from examples.common.lock import locked


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
        KeyboardInterrupt: After Ctrl-C; the last iteration has been saved.
    """
    run_folder.check_run_folder(config.out, resume)
    with joined_ranks(config.device) as ranks:
        torch.manual_seed(config.seed + ranks.index)
        dataset, val = training_data(config), validation_data(config)
        images_per_part(config, ranks)  # raises if the batch cannot be divided
        checkpoint = config.out / "last.pt"
        resume = resume and checkpoint.is_file()  # without a checkpoint, start from scratch
        if resume:  # the checkpoint holds all weights
            model = initial_model(config, None, None)
        else:
            model, config = start_model(config, dataset)
        state = build_state(model, config, ranks)
        progress = restore(checkpoint, state, dataset.frames, ranks) if resume else Progress()
        run_folder.check_not_beyond(config, progress)
        ranks.wait()  # all have looked at the folder; from here on it is written to

        if ranks.is_main:
            run_folder.prepare_run_folder(config, progress)
        with (
            open_board(config, progress.iteration, ranks) as board,
            noted_signals(signal.SIGINT, *TERMINATIONS) as signals,
        ):
            path = config.out / "metrics.jsonl" if ranks.is_main else None
            log = MetricLog(path, listeners=(board.add_lines,) if board else ())
            run = Run(config, ranks, dataset, val, state, log, board, signals, deadline)
            try:
                done = train_from(progress, run)
            except NonFiniteLossError as error:
                raise with_files(error, config, dataset) from None
    if signal.SIGINT in signals:
        raise KeyboardInterrupt("interrupted; `train --resume` goes on from the last iteration")
    return done


def train_from(progress: Progress, run: Run) -> int:
    """Train to the last iteration, or until something ends it; returns how far that was.

    Several processes have to save together, so before every step they agree whether to go on. If
    one of them fails during a step, the others cannot save: only the last checkpoint remains.
    """
    config, ranks, state = run.config, run.ranks, run.state
    set_training_mode(state, config)
    is_asked = False
    with (
        progress_bar(config, progress.iteration, ranks) as bar,
        closing(load(config, run.dataset, progress.iteration, ranks)) as batches,
    ):
        while True:
            if is_due(progress, config):  # perhaps left by a run that ended while it validated
                progress = validate_and_save_best(progress, run)
                is_asked = run.is_asked_to_stop()
            if progress.iteration == config.iterations:
                return progress.iteration
            problem = None
            try:
                parts = list(islice(batches, config.accumulate))
            except Exception as error:
                # A scheduler that asks training to stop ends the loader's processes as well.
                problem, is_asked = error, is_asked or run.is_asked_to_stop()
            if ranks.any(is_asked or problem is not None):
                return save_and_stop(progress, run, None if is_asked else problem)
            try:
                train_one_step(state, parts, config, progress.iteration, run.log)
            except Exception as error:
                if state.start.is_whole and ranks.count == 1:
                    save_and_stop(progress, run, error)
                raise
            progress = progress._replace(iteration=progress.iteration + 1)
            is_asked = run.is_asked_to_stop()
            show_progress(bar, run.log, config.batch_size)
            if is_to_save(progress, config) or is_due(progress, config):
                save(progress, run, "last.pt")


def train_one_step(
    state: TrainingState,
    parts: Iterable[Batch],
    config: TrainConfig,
    iteration: int,
    log: MetricLog,
) -> None:
    """Take one optimizer step, on the parts of a batch one after another, and log it."""
    for optimizer in state.optimizers:
        optimizer.zero_grad(set_to_none=True)

    draw_weights(state.loss_fn, config, iteration)
    with state.start:  # a step that fails here, such as for want of memory, is taken back
        measured = []
        for index, batch in enumerate(parts):
            is_last = index == config.accumulate - 1
            with nullcontext() if is_last else gradients_stay_here(state.module):
                targets, masks = batch.targets(), batch.masks()
                losses, predictions = state.module(batch.image, targets, masks)
                (losses.total / config.accumulate).backward()
            measured.append(measure_part(state.loss_fn, losses, predictions, targets, masks))

        plain = {"iteration": iteration, "learning_rate": scheduled_rate(config, iteration)}
        # Log before the optimizers change sigma. No `.item()`: it would wait for the GPU.
        log.add(plain, measurements(state, measured))
        clip_gradient(state.model, config)

    for group in state.optimizers[0].param_groups:
        group["lr"] = plain["learning_rate"]
    for optimizer in state.optimizers:
        optimizer.step()
    state.start.is_whole = True


def validate_and_save_best(progress: Progress, run: Run) -> Progress:
    """Validate, keep the checkpoint if it is the best so far, and show a picture."""
    ranks, model, val = run.ranks, run.state.model, cast(CityscapesDataset, run.val)
    shares = in_order(val, images_per_part(run.config, ranks))[ranks.index :: ranks.count]
    batches: Iterable[Batch] = data.batches(val, shares, run.config.tasks, device=ranks.device)
    if ranks.count == 1:  # several processes finish it together
        batches = takewhile(lambda _: not run.is_asked_to_stop(), batches)
    figures = validate(model, batches, ranks, val.protocol)
    if ranks.count == 1 and run.is_asked_to_stop():
        return progress  # the figures are incomplete: a resumed run validates again
    progress = progress._replace(validated=progress.iteration)
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
        maps = predict_maps(model, image.to(ranks.device))
        run.board.add_validation(progress.iteration, figures, image, maps)
    set_training_mode(run.state, run.config)
    save(progress, run, "last.pt")  # again: it has been saved before validating
    return progress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command: one for every field of `TrainConfig`."""
    # What is not given is left to the preset, or, on resuming, to the recorded run.
    parser.argument_default = argparse.SUPPRESS
    add = parser.add_argument
    add("--resume", action="store_true", help="go on from the last checkpoint in --out")
    text = "another run's config.json, for all settings without a flag, except for --out"
    add("--config", type=Path, metavar="FILE", help=text)
    add_config_flags(add)


def run(resume: bool = False, config: Path | None = None, **given: Any) -> None:
    """Train a network."""
    asked = asked_config(given, resume=resume, file=config)
    with locked(asked.out):
        train(asked, resume=resume)
