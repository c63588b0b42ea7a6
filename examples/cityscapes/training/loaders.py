"""The input of training: both splits, the order of the images, each process' share of them."""

from collections.abc import Generator

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.data.augment import Augmentation
from examples.cityscapes.data.dataset import Batch, CityscapesDataset, batches, collate
from examples.cityscapes.data.order import TrainingOrder
from examples.cityscapes.protocols import PROTOCOLS
from examples.cityscapes.training.distributed import RankOrder, Ranks, images_per_part
from examples.common.errors import InputError, NonFiniteLossError


def training_data(config: TrainConfig) -> CityscapesDataset:
    """Open the training split and check that it fills a batch."""
    augmentation = Augmentation(config.flip, config.scale, config.crop)
    dataset = CityscapesDataset(
        config.data,
        "train",
        config.size,
        config.tasks,
        augmentation,
        config.labels,
        PROTOCOLS[config.protocol],
    )
    if len(dataset) < config.batch_size:
        raise InputError(
            f"--batch-size: {config.batch_size} is more than the {len(dataset)} training images of "
            f"{config.data}"
        )
    dataset.keep(config.cache_mb)
    check_labels(dataset, config)
    return dataset


def check_labels(dataset: CityscapesDataset, config: TrainConfig) -> None:
    """Raise if a task would be trained to the end without meeting a single label.

    Images are read until every task has had one: the first few in general, and the whole split
    only where there is something to complain about.
    """
    missing = list(config.tasks)
    for index in range(len(dataset)):
        masks = collate([dataset.read(index)], missing).masks()
        missing = [task for task in missing if not masks[task].any()]
        if not missing:
            return
    reasons = {
        "semantic": f"no pixel has one of the {len(dataset.protocol.class_names)} classes",
        "instance": "no pixel belongs to an instance",
        "depth": "no pixel has a disparity",
    }
    if all(frame.disparity is None for frame in dataset.frames):
        reasons["depth"] = "looked for disparity/train/*/*_disparity.png"
    others = ",".join(task for task in config.tasks if task not in missing)
    raise InputError(
        f"{config.data}: no training image has labels for {' and '.join(missing)} "
        f"({', '.join(reasons[task] for task in missing)})"
        + (f"; --tasks {others} trains without" if others else ", so there is nothing to train")
    )


def validation_data(config: TrainConfig) -> CityscapesDataset | None:
    """Open the validation split, if it is to be looked at."""
    if not config.eval_every:
        return None
    try:
        protocol = PROTOCOLS[config.protocol]
        val = CityscapesDataset(config.data, "val", config.size, config.tasks, protocol=protocol)
    except InputError as error:
        raise InputError(f"{error}; --eval-every 0 trains without validation") from error
    val.keep(config.cache_mb)
    return val


def training_order(config: TrainConfig, num_images: int, first: int) -> TrainingOrder:
    """Return the batches from iteration `first` to the last."""
    return TrainingOrder(
        num_images,
        config.batch_size,
        start=first,
        stop=config.iterations,
        seed=config.seed,
        augment=config.flip or config.crop is not None or config.scale != (1.0, 1.0),
    )


def load(
    config: TrainConfig, dataset: CityscapesDataset, first: int, ranks: Ranks
) -> Generator[Batch]:
    """Return this process' share of every batch, part by part, on the device."""
    order = training_order(config, len(dataset), first)
    shares = RankOrder(order, config.accumulate, images_per_part(config, ranks), ranks)
    return batches(
        dataset, shares, config.tasks, num_workers=config.num_workers, device=ranks.device
    )


def with_files(
    error: NonFiniteLossError, config: TrainConfig, dataset: CityscapesDataset
) -> NonFiniteLossError:
    """Add the images of the batch, which follow from the iteration."""
    draws = next(iter(training_order(config, len(dataset), error.iteration)))
    names = ", ".join(dataset.frames[draw.index].image.name for draw in draws)
    return NonFiniteLossError(f"{error}; the images of that batch: {names}", error.iteration)
