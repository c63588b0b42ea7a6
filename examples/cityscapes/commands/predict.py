"""What a trained network sees in images, written beside each other as pictures and as arrays."""

import argparse
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, cast

import numpy as np
import torch
from tqdm import tqdm

from examples.cityscapes.commands.images import images_below
from examples.cityscapes.config import TrainConfig, load_config
from examples.cityscapes.data.read_image import read_rgb
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.flags import add_checkpoint_flag, add_grouping_flags
from examples.cityscapes.model.network import SceneNet
from examples.cityscapes.report.pictures import (
    draw_key,
    draw_overlay,
    draw_panels,
    draw_uncertainty,
)
from examples.cityscapes.scene.grouping import Grouping
from examples.cityscapes.scene.maps import Arrays, Maps, input_size, predict_maps, to_arrays
from examples.cityscapes.scene.uncertainty import predict_with_uncertainty
from examples.cityscapes.settings import DEVICES
from examples.common.checkpoint import write_atomically
from examples.common.command_line import positive_number
from examples.common.device import pick_device
from examples.common.errors import InputError
from examples.common.lock import locked


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


def predict(
    config: TrainConfig, image: Path, out: Path, options: Options | None = None
) -> Iterator[list[Path]]:
    """Predict images by the run in `config.out`, one batch after another.

    For every image, under its path relative to a given folder: `NAME_panels.png`,
    `NAME_overlay.png` (with the semantic task), `NAME_uncertainty.png` (with samples) and
    `NAME_arrays.npz`, at the size of the image; beside them `classes.png`, the key of the colours.

    Args:
        config: The run's configuration.
        image: An RGB image, or a folder of them; see `images_below`.
        out: Folder for the files.
        options: How images are predicted and what is written.

    Yields:
        The files of the next image, as soon as they are there.

    Raises:
        InputError: If an image cannot be read; those before it have been written.
    """
    options = options or Options()
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    if options.samples is not None and not config.dropout:
        raise InputError(
            f"--uncertainty: {config.out} was trained without dropout, so there is nothing to "
            "sample; train with --dropout, such as 0.2"
        )
    images = images_below(image, out)
    device = pick_device(options.device)
    model = load_trained(config, options.checkpoint)
    model.to(device).to(memory_format=torch.channels_last).eval()

    done = 0
    # On a terminal only: elsewhere an error is to be the one line that is printed.
    bar = tqdm(total=len(images), desc="predicting", unit="image", leave=False, disable=None)
    with bar:
        for batch, size, error in _batches(images, config.size, options.batch_size):
            for name, arrays in _predict_batch(model, batch, size, device, options):
                yield _write(out, name, arrays, options)
                done += 1
                bar.update()
            if error is not None:
                tail = f"; {done} of {len(images)} images are done" if len(images) > 1 else ""
                raise InputError(f"{error}{tail}") from error


_Batch = dict[PurePath, np.ndarray]


def _batches(
    images: dict[PurePath, Path], size: tuple[int, int], batch_size: int
) -> Iterator[tuple[_Batch, tuple[int, int], InputError | None]]:
    """Yield batches of images that the network sees at one size; an error ends the last one."""
    batch: _Batch = {}
    seen_at = size
    for name, path in images.items():
        try:
            pixels = read_rgb(path)
        except InputError as error:
            yield batch, seen_at, error
            return
        wanted = input_size(pixels.shape[:2], size)
        if batch and (wanted != seen_at or len(batch) == batch_size):
            yield batch, seen_at, None
            batch = {}
        seen_at = wanted
        batch[name] = pixels
    yield batch, seen_at, None


def _predict_batch(
    model: SceneNet,
    batch: _Batch,
    size: tuple[int, int],
    device: torch.device,
    options: Options,
) -> Iterator[tuple[PurePath, Arrays]]:
    if batch and options.samples is None:
        found = predict_maps(model, list(batch.values()), size, device)
        for (name, pixels), maps in zip(batch.items(), found, strict=True):
            yield name, _arrays(pixels, maps, {}, options.grouping)
        return
    num_samples = cast(int, options.samples)
    for name, pixels in batch.items():
        # One by one: the outputs for all samples are in memory together.
        maps, doubts = predict_with_uncertainty(
            model, pixels, size, device, samples=num_samples, at_once=options.batch_size
        )
        yield name, _arrays(pixels, maps, doubts, options.grouping)


def _arrays(pixels: np.ndarray, maps: Maps, doubts: Arrays, grouping: Grouping | None) -> Arrays:
    single = {task: values.unsqueeze(0) for task, values in maps.items()}
    if "semantic" in maps:
        single["semantic"] = single["semantic"].argmax(dim=1)
    if "depth_sigma" in maps:
        doubts = {**doubts, "inverse_depth_aleatoric": maps["depth_sigma"][0].numpy()}
    return {"image": pixels, **to_arrays(single, grouping), **doubts}


def _write(out: Path, name: PurePath, arrays: Arrays, options: Options) -> list[Path]:
    contents = {"panels.png": draw_panels(arrays)}
    if "classes" in arrays:
        contents["overlay.png"] = draw_overlay(
            arrays["image"], arrays["classes"], arrays.get("instances")
        )
    if options.samples is not None:
        contents["uncertainty.png"] = draw_uncertainty(arrays)
    if options.arrays:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **cast(Any, arrays))
        contents["arrays.npz"] = buffer.getvalue()
    folder = out / name.parent
    folder.mkdir(parents=True, exist_ok=True)
    key = out / "classes.png"
    if "classes" in arrays and not key.exists():
        write_atomically(key, draw_key())
    paths = []
    for ending, content in contents.items():
        paths.append(folder / f"{name.name}_{ending}")
        write_atomically(paths[-1], content)
    return paths


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
    add("--device", choices=DEVICES, default="auto")
    add_checkpoint_flag(add)
    add_grouping_flags(add)


def run(
    run: Path,
    image: Path,
    out: Path,
    uncertainty: bool,
    samples: int,
    device: str,
    checkpoint: str,
    batch_size: int,
    arrays: bool,
    **grouping: Any,
) -> None:
    """Predict one image, or all in a folder."""
    options = Options(
        device=device,
        checkpoint=checkpoint,
        batch_size=batch_size,
        samples=samples if uncertainty else None,
        arrays=arrays,
        grouping=Grouping(**grouping),
    )
    with locked(out):
        written = list(predict(load_config(run), image, out, options))
    files = "\n".join(str(path) for paths in written for path in paths)
    print(f"{len(written)} images predicted in {out}" if image.is_dir() else files)
