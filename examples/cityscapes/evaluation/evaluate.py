"""A run's figures of merit on the validation split, beside those of two baselines."""

import argparse
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.data.dataset import CityscapesDataset, batches
from examples.cityscapes.data.order import in_order
from examples.cityscapes.evaluation.metrics import metrics_of
from examples.cityscapes.evaluation.official import check_official, official_figures
from examples.cityscapes.evaluation.predictors import (
    BASELINES,
    Predictor,
    baselines,
    by_network,
    open_kept,
)
from examples.cityscapes.evaluation.tables import full_summary
from examples.cityscapes.flags import add_checkpoint_flag, add_grouping_flags
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.scene.grouping import Grouping, group_pixels
from examples.cityscapes.settings import DEVICES, check_three_tasks
from examples.common.checked_weights import load_weights
from examples.common.checkpoint import read_checkpoint, write_atomically
from examples.common.command_line import positive_number
from examples.common.device import pick_device
from examples.common.errors import InputError
from examples.common.lock import locked

Metrics = dict[str, Any]

RAND_INDEX_IMAGES = 20
"""Images on which clusterings are compared; each takes up to a second."""


def evaluate(
    config: TrainConfig,
    data: Path,
    device: str = "auto",
    *,
    official: bool = False,
    grouping: Grouping | None = None,
    checkpoint: str = "last",
    limit: int | None = None,
) -> Metrics:
    """Measure the run in `config.out` and write its metrics.json.

    Args:
        config: The run's configuration.
        data: Dataset whose `val` split is measured, and whose `train` split, if it has one, makes
            the prior.
        device: `auto`, `cpu` or `cuda`.
        official: Whether to export predictions to `config.out/official` and to run the official
            scripts on them; their figures are under `official`.
        grouping: How votes become instances.
        checkpoint: `last`, or `best` of the validations during training.
        limit: Measure only this many images, in the order of their names, without the baselines,
            and write no file, as the figures are not those of the whole split. None: all images.

    Returns:
        The network's figures, the `checkpoint` and the `iteration` that they are of, and under
        `position_prior` and `untrained` the figures of the baselines. If a baseline cannot be made,
        all of its figures are None.
    """
    grouping = grouping or Grouping()
    if official and limit is not None:
        raise InputError("--limit: cannot be combined with --official, which measures all images")
    if official:
        check_three_tasks(config, "--official")
        check_official(config.tasks, data)
    where = pick_device(device)
    model, iteration = read_trained(config, checkpoint)
    trained = by_network(model, where)
    val = open_kept(config, data, "val", limit=limit)

    metrics = measure(val, config.tasks, trained)
    metrics["instance_rand_index"] = None
    if "instance" in config.tasks:
        metrics["instance_rand_index"] = instance_rand_index(val, trained, grouping)
    metrics |= {"num_images": len(val), "checkpoint": checkpoint, "iteration": iteration}
    is_whole = limit is None  # for a few images, do not read the whole training split
    others = baselines(config, data, where) if is_whole else dict.fromkeys(BASELINES)
    for name, baseline in others.items():
        metrics[name] = (
            metrics_of(val.protocol).compute()
            if baseline is None
            else measure(val, config.tasks, baseline)
        )
    if not is_whole:
        return metrics
    path = config.out / "metrics.json"
    # Written before the official scripts run, as they take long and may fail.
    write_atomically(path, json.dumps(metrics, indent=2) + "\n")
    if official:
        out = config.out / "official"
        try:
            metrics["official"] = official_figures(model, data, config.size, out, grouping)
        except InputError as error:
            raise InputError(f"{error}; all other figures are in {path}") from error
        write_atomically(path, json.dumps(metrics, indent=2) + "\n")
    return metrics


def load_trained(config: TrainConfig, checkpoint: str = "last") -> SceneNet:
    """Return the network of a run's last checkpoint, or of its best."""
    return read_trained(config, checkpoint)[0]


def read_trained(config: TrainConfig, checkpoint: str) -> tuple[SceneNet, int]:
    """Return the network of a checkpoint, and for how many iterations it was trained."""
    path = config.out / f"{checkpoint}.pt"
    if checkpoint == "best" and not path.is_file():
        raise InputError(
            f"{path}: not found; a run keeps its best checkpoint when --eval-every is above 0"
        )
    if not path.is_file():
        raise InputError(f"{path}: not found; {config.out} holds no trained network yet")
    model = SceneNet(config)
    try:
        saved = read_checkpoint(path)
        load_weights(model, saved.get("model"))
    except ValueError as error:
        raise InputError(f"{path}: does not fit the run's config.json ({error})") from error
    if not isinstance(saved.get("iteration"), int):
        raise InputError(f"{path}: not a checkpoint of a run ('iteration' is missing)")
    return model, saved["iteration"]


def measure(dataset: CityscapesDataset, tasks: tuple[str, ...], predict: Predictor) -> Metrics:
    """Return the figures of a predictor over a split; None for a task outside of `tasks`."""
    metrics = metrics_of(dataset.protocol)
    labels, frames = set(tasks), dataset.frames
    has_ids = all(frame.instance_ids is not None for frame in frames)
    if has_ids and "instance" in dataset.protocol.tasks:
        labels.add("instance")  # for the iIoU
    for batch in batches(dataset, in_order(dataset), tuple(labels)):
        maps = predict(batch.image)
        metrics.add({task: maps[task] for task in tasks}, batch)
    return metrics.compute()


def instance_rand_index(
    dataset: CityscapesDataset, predict: Predictor, grouping: Grouping | None
) -> float | None:
    """Return how well predicted vectors separate the pixels of the true instances.

    The mean adjusted Rand index over images; 1 is perfect, 0 is chance. The mask is the truth's,
    so that only the vectors are judged.
    """
    from sklearn.metrics import adjusted_rand_score  # as in `find_centres`

    scores = []
    for index in range(min(len(dataset), RAND_INDEX_IMAGES)):
        sample = dataset.read(index)
        mask = sample.instance_ids.numpy() > 0
        if mask.any():
            offsets = predict(sample.image.unsqueeze(0))["instance"][0].numpy()
            truth = sample.instance_ids.numpy()[mask]
            scores.append(adjusted_rand_score(truth, group_pixels(offsets, mask, grouping)))
    return float(np.mean(scores)) if scores else None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run; metrics.json goes there")
    add("--data", type=Path, required=True, help="dataset in the official layout, or prepared")
    add("--device", choices=DEVICES, default="auto")
    add_checkpoint_flag(add)
    text = "also export predictions to RUN/official, and run cityscapesScripts on them"
    add("--official", action="store_true", help=text)
    text = "measure only the first N images, without the baselines, and write nothing"
    add("--limit", type=positive_number, metavar="N", help=text)
    add_grouping_flags(add)


def run(
    run: Path,
    data: Path,
    device: str,
    official: bool,
    checkpoint: str,
    limit: int | None,
    **grouping: Any,
) -> None:
    """Measure a run on the validation split."""
    chosen, config = Grouping(**grouping), load_config(run)
    # Anybody may measure a run while it is trained: only the folder that is replaced is locked.
    with locked(run / "official") if official else nullcontext():
        metrics = evaluate(
            config,
            data,
            device,
            official=official,
            grouping=chosen,
            checkpoint=checkpoint,
            limit=limit,
        )
    print(full_summary(config, metrics))
    if limit is not None:
        print(f"\nmeasured on the first {metrics['num_images']} images; nothing was written")
