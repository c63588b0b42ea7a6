"""What a trained network sees in images, written beside each other as pictures and as arrays."""

import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

import uncertainty_mtl
from examples.cityscapes.commands.finished import FinishedImages
from examples.cityscapes.commands.images import images_below
from examples.cityscapes.commands.photos import BadImages, Photo, check_photos, photo_batches
from examples.cityscapes.commands.prediction_files import files_to_write, write_files, write_key
from examples.cityscapes.commands.trained import Trained, check_can_sample
from examples.cityscapes.scene.grouping import Grouping
from examples.cityscapes.scene.maps import Arrays, Maps, predict_maps, to_arrays
from examples.cityscapes.scene.uncertainty import predict_with_uncertainty
from examples.common.errors import InputError
from examples.common.stage_clock import StageClock

MAX_MEGAPIXELS = 4
"""Twice an image of CityScapes. Predicting so many pixels takes about 1 GB of memory."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How images are predicted and what is written."""

    batch_size: int = 1
    """Images, or samples of one image, that go through the network together."""
    samples: int | None = None
    """Dropout masks to average over; None: no dropout, and no uncertainty."""
    write: tuple[str, ...] | None = None
    """Which of `prediction_files.FILES` are written; None: all that there can be."""
    grouping: Grouping = field(default_factory=Grouping)
    """How votes become instances."""
    limit: int | None = None
    """How many images are predicted, the first by name; None: all."""
    max_megapixels: int = MAX_MEGAPIXELS
    """A larger image is reduced to so many million pixels, and so are its predictions."""
    skip_bad: bool = False
    """Whether to go on with the other images after one that cannot be used."""


class Predicted(NamedTuple):
    """An image whose predictions are complete."""

    files: list[Path]
    is_new: bool
    """Whether it was predicted just now; otherwise by an earlier call."""
    is_reduced: bool
    """Whether the image had too many pixels."""


def predict(
    trained: Trained, image: Path, out: Path, options: Options, clock: StageClock
) -> Iterator[Predicted]:
    """Predict images, one batch after another.

    For every image, under its path relative to a given folder: `NAME_panels.png`,
    `NAME_overlay.png` (with the semantic task), `NAME_uncertainty.png` (with samples) and
    `NAME_arrays.npz`, at the size of the image; beside them `classes.png`, the key of the colours,
    and `predictions.jsonl`, which tells a repeated call what is finished.

    Args:
        trained: The network.
        image: An RGB image, or a folder of them; see `images_below`.
        out: Folder for the files.
        options: How images are predicted and what is written.
        clock: Gets the seconds of each stage.

    Yields:
        The next image, as soon as its files are there; those of earlier calls come first.

    Raises:
        InputError: If an image cannot be used. If its header shows this, no image has been
            predicted yet; if not, the images before it have been. With `skip_bad`, all others have
            been predicted.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if options.samples is not None:
        check_can_sample(trained.network)
    kinds = files_to_write(options.write, trained.tasks, options.samples is not None)
    images = dict(islice(images_below(image, out).items(), options.limit))
    bad = BadImages(len(images), skip=options.skip_bad)
    usable = check_photos(images, bad)

    record = FinishedImages(out, _maker(trained, options, kinds))
    finished = record.begin(usable)
    for files in finished.values():
        yield Predicted(files, is_new=False, is_reduced=False)
    bad.num_done = len(finished)
    waiting = {name: path for name, path in usable.items() if name not in finished}
    # The bar shows on terminals only: elsewhere, an error should be the only line printed.
    bar = tqdm(total=len(waiting), desc="predicting", unit="image", leave=False, disable=None)
    with bar:
        max_pixels = options.max_megapixels * 1_000_000
        batches = photo_batches(waiting, trained.size, options.batch_size, max_pixels, bad)
        for batch, size in clock.each("reading", batches):
            for name, arrays in _predict_batch(trained, batch, size, options, clock):
                with clock.stage("writing"):
                    if "overlay" in kinds and bad.num_done == len(finished):  # the first one
                        write_key(out, trained.protocol)
                    files = write_files(out, name, arrays, kinds, trained.protocol)
                record.add(name, files)
                bad.num_done += 1
                yield Predicted(files, is_new=True, is_reduced=batch[name].is_reduced)
                bar.update()
    bad.report()


def _maker(trained: Trained, options: Options, kinds: tuple[str, ...]) -> str:
    """Return a checksum of everything that affects how images are predicted."""
    decided_by = {
        "version": uncertainty_mtl.__version__,
        **trained.origin,
        "grouping": vars(options.grouping),
        "samples": options.samples,
        "write": kinds,
        "max_megapixels": options.max_megapixels,
    }
    return f"{zlib.crc32(json.dumps(decided_by).encode()):08x}"


def _predict_batch(
    trained: Trained,
    batch: dict[PurePath, Photo],
    size: tuple[int, int],
    options: Options,
    clock: StageClock,
) -> Iterator[tuple[PurePath, Arrays]]:
    """Yield name and arrays of each image."""
    pixels = {name: photo.pixels for name, photo in batch.items()}
    if options.samples is None:
        found = predict_maps(
            trained.network, list(pixels.values()), size, trained.device, trained.protocol
        )
        all_maps = clock.each("network", found)
        for (name, image), maps in zip(pixels.items(), all_maps, strict=True):
            with clock.stage("clustering"):
                arrays = _arrays(image, maps, {}, options.grouping)
            yield name, arrays
        return
    model = check_can_sample(trained.network)
    for name, image in pixels.items():
        # One image at a time, as the outputs for all of its samples are in memory together.
        with clock.stage("network"):
            maps, doubts = predict_with_uncertainty(
                model,
                image,
                size,
                trained.device,
                trained.protocol,
                samples=options.samples,
                at_once=options.batch_size,
            )
        with clock.stage("clustering"):
            arrays = _arrays(image, maps, doubts, options.grouping)
        yield name, arrays


def _arrays(pixels: np.ndarray, maps: Maps, doubts: Arrays, grouping: Grouping) -> Arrays:
    single = {task: values.unsqueeze(0) for task, values in maps.items()}
    if "semantic" in maps:
        single["semantic"] = single["semantic"].argmax(dim=1)
    if "depth_sigma" in maps:
        doubts = {**doubts, "inverse_depth_aleatoric": maps["depth_sigma"][0].numpy()}
    return {"image": pixels, **to_arrays(single, grouping), **doubts}
