"""What a trained network sees in images, written beside each other as pictures and as arrays."""

import argparse
import dataclasses
import json
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import torch
from tqdm import tqdm

import uncertainty_mtl
from examples.cityscapes.commands.finished import FinishedImages
from examples.cityscapes.commands.images import images_below
from examples.cityscapes.commands.photos import BadImages, Photo, check_photos, photo_batches
from examples.cityscapes.commands.prediction_files import write_files
from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.flags import add_checkpoint_flag, add_grouping_flags
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.scene.grouping import Grouping
from examples.cityscapes.scene.maps import Arrays, Maps, predict_maps, to_arrays
from examples.cityscapes.scene.uncertainty import predict_with_uncertainty
from examples.cityscapes.settings import DEVICES, check_three_tasks
from examples.common.command_line import positive_number
from examples.common.device import pick_device
from examples.common.errors import InputError
from examples.common.lock import locked

MAX_MEGAPIXELS = 4
"""Twice an image of CityScapes. Predicting so many pixels takes about 1 GB of memory."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How images are predicted and what is written."""

    device: str = "auto"
    checkpoint: str = "last"
    """`last` or `best`."""
    batch_size: int = 1
    """Images, or samples of one image, that go through the network together."""
    samples: int | None = None
    """Dropout masks to average over; None: no dropout, and no uncertainty."""
    arrays: bool = True
    """Whether the arrays are written too."""
    grouping: Grouping | None = None
    """How votes become instances."""
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
    config: TrainConfig, image: Path, out: Path, options: Options | None = None
) -> Iterator[Predicted]:
    """Predict images by the run in `config.out`, one batch after another.

    For every image, under its path relative to a given folder: `NAME_panels.png`,
    `NAME_overlay.png` (with the semantic task), `NAME_uncertainty.png` (with samples) and
    `NAME_arrays.npz`, at the size of the image; beside them `classes.png`, the key of the colours,
    and `predictions.jsonl`, which tells a repeated call what is finished.

    Args:
        config: The run's configuration.
        image: An RGB image, or a folder of them; see `images_below`.
        out: Folder for the files.
        options: How images are predicted and what is written.

    Yields:
        The next image, as soon as its files are there; those of earlier calls come first.

    Raises:
        InputError: If an image cannot be used. If its header tells, nothing has been predicted; if
            not, the images before it have. With `skip_bad`, all other images have.
    """
    check_three_tasks(config, "predict")
    options = options or Options()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if options.samples is not None and not config.dropout:
        raise InputError(
            f"--uncertainty: {config.out} was trained without dropout, so there is nothing to "
            "sample; train with --dropout, such as 0.2"
        )
    images = images_below(image, out)
    bad = BadImages(len(images), skip=options.skip_bad)
    usable = check_photos(images, bad)
    device = pick_device(options.device)
    model = load_trained(config, options.checkpoint)
    model.to(device).to(memory_format=torch.channels_last).eval()

    record = FinishedImages(out, _maker(config, options))
    finished = record.begin(usable)
    for files in finished.values():
        yield Predicted(files, is_new=False, is_reduced=False)
    bad.num_done = len(finished)
    waiting = {name: path for name, path in usable.items() if name not in finished}
    # On a terminal only: elsewhere an error is to be the one line that is printed.
    bar = tqdm(total=len(waiting), desc="predicting", unit="image", leave=False, disable=None)
    with bar:
        max_pixels = options.max_megapixels * 1_000_000
        for batch, size in photo_batches(waiting, config.size, options.batch_size, max_pixels, bad):
            for name, arrays in _predict_batch(model, batch, size, device, options):
                with_uncertainty = options.samples is not None
                files = write_files(out, name, arrays, options.arrays, with_uncertainty)
                record.add(name, files)
                bad.num_done += 1
                yield Predicted(files, is_new=True, is_reduced=batch[name].is_reduced)
                bar.update()
    bad.report()


def _maker(config: TrainConfig, options: Options) -> str:
    """Return a number that differs wherever an image would be predicted differently."""
    checkpoint = (config.out / f"{options.checkpoint}.pt").read_bytes()
    decided_by = {
        "version": uncertainty_mtl.__version__,
        "checkpoint": zlib.crc32(checkpoint),
        "config": {k: v for k, v in vars(config).items() if k not in ("data", "out")},
        "grouping": vars(options.grouping or Grouping()),
        "samples": options.samples,
        "arrays": options.arrays,
        "max_megapixels": options.max_megapixels,
    }
    return f"{zlib.crc32(json.dumps(decided_by).encode()):08x}"


def _predict_batch(
    model: SceneNet,
    batch: dict[PurePath, Photo],
    size: tuple[int, int],
    device: torch.device,
    options: Options,
) -> Iterator[tuple[PurePath, Arrays]]:
    pixels = {name: photo.pixels for name, photo in batch.items()}
    if options.samples is None:
        found = predict_maps(model, list(pixels.values()), size, device)
        for (name, image), maps in zip(pixels.items(), found, strict=True):
            yield name, _arrays(image, maps, {}, options.grouping)
        return
    for name, image in pixels.items():
        # One by one: the outputs for all samples are in memory together.
        maps, doubts = predict_with_uncertainty(
            model, image, size, device, samples=options.samples, at_once=options.batch_size
        )
        yield name, _arrays(image, maps, doubts, options.grouping)


def _arrays(pixels: np.ndarray, maps: Maps, doubts: Arrays, grouping: Grouping | None) -> Arrays:
    single = {task: values.unsqueeze(0) for task, values in maps.items()}
    if "semantic" in maps:
        single["semantic"] = single["semantic"].argmax(dim=1)
    if "depth_sigma" in maps:
        doubts = {**doubts, "inverse_depth_aleatoric": maps["depth_sigma"][0].numpy()}
    return {"image": pixels, **to_arrays(single, grouping), **doubts}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run")
    add("--image", type=Path, required=True, help="an RGB image, or a folder with images")
    add("--out", type=Path, required=True, help="folder for the pictures and the arrays")
    add("--batch-size", type=positive_number, default=1, metavar="N", help="images at once (1)")
    text = "average over dropout masks, and add maps of epistemic and aleatoric uncertainty"
    add("--uncertainty", action="store_true", help=text)
    add("--samples", type=positive_number, default=20, metavar="N", help="dropout masks (20)")
    yes_or_no = argparse.BooleanOptionalAction
    add("--arrays", action=yes_or_no, default=True, help="whether to write NAME_arrays.npz (yes)")
    text = f"a larger image is reduced to N million pixels ({MAX_MEGAPIXELS})"
    add("--max-megapixels", type=positive_number, default=MAX_MEGAPIXELS, metavar="N", help=text)
    text = "leave out images that cannot be used, and list them at the end"
    add("--skip-bad", action="store_true", help=text)
    add("--device", choices=DEVICES, default="auto")
    add_checkpoint_flag(add)
    add_grouping_flags(add)


def run(
    run: Path, image: Path, out: Path, uncertainty: bool, samples: int, **settings: Any
) -> None:
    """Predict one image, or all in a folder."""
    names = {field.name for field in dataclasses.fields(Grouping)}
    grouping = {name: settings.pop(name) for name in names & settings.keys()}
    options = Options(
        samples=samples if uncertainty else None, grouping=Grouping(**grouping), **settings
    )
    num_images = num_before = num_reduced = 0
    with locked(out):
        for predicted in predict(load_config(run), image, out, options):
            num_images += 1
            num_before += not predicted.is_new
            num_reduced += predicted.is_reduced
            if not image.is_dir():
                print(*predicted.files, sep="\n")
    if image.is_dir():
        before = f", {num_before} of them by an earlier command" if num_before else ""
        print(f"{num_images} images predicted in {out}{before}")
    if num_reduced:
        limit = f"{options.max_megapixels} million pixels"
        more = "--max-megapixels allows more"
        print(f"images reduced to {limit}: {num_reduced}; {more}", file=sys.stderr)
