"""Predicting images by a trained network, from the command line."""

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from examples.cityscapes.commands.predict_images import MAX_MEGAPIXELS, Options, predict
from examples.cityscapes.commands.prediction_files import FILES, kinds_of_files
from examples.cityscapes.commands.trained import exported_network, network_of_run
from examples.cityscapes.flags import add_checkpoint_flag, add_grouping_flags
from examples.cityscapes.scene.grouping import Grouping
from examples.cityscapes.settings import DEVICES
from examples.common.command_line import positive_number
from examples.common.lock import locked
from examples.common.stage_clock import StageClock


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    network = parser.add_mutually_exclusive_group(required=True)
    network.add_argument("--run", type=Path, help="folder of the run")
    text = "a network that `export` has written, instead of a run"
    network.add_argument("--model", type=Path, metavar="FILE.onnx", help=text)
    add("--image", type=Path, required=True, help="an RGB image, or a folder with images")
    add("--out", type=Path, required=True, help="folder for the pictures and the arrays")
    add("--limit", type=positive_number, metavar="N", help="predict only the first N images")
    text = f"which files to write for an image: {','.join(FILES)}, or some of them (all)"
    add("--write", type=kinds_of_files, metavar="LIST", help=text)
    add("--batch-size", type=positive_number, default=1, metavar="N", help="images at once (1)")
    text = "average over dropout masks, and add maps of epistemic and aleatoric uncertainty"
    add("--uncertainty", action="store_true", help=text)
    add("--samples", type=positive_number, default=20, metavar="N", help="dropout masks (20)")
    text = f"a larger image is reduced to N million pixels ({MAX_MEGAPIXELS})"
    add("--max-megapixels", type=positive_number, default=MAX_MEGAPIXELS, metavar="N", help=text)
    text = "leave out images that cannot be used, and list them at the end"
    add("--skip-bad", action="store_true", help=text)
    add("--device", choices=DEVICES, default="auto")
    add_checkpoint_flag(add)
    add_grouping_flags(add)


def run(
    run: Path | None,
    model: Path | None,
    image: Path,
    out: Path,
    checkpoint: str,
    device: str,
    uncertainty: bool,
    samples: int,
    **settings: Any,
) -> None:
    """Predict one image, or all in a folder."""
    names = {field.name for field in dataclasses.fields(Grouping)}
    given = {name: settings.pop(name) for name in names & settings.keys()}
    Grouping(**given)  # raises before a network is loaded
    clock = StageClock()
    num_images = num_before = num_reduced = 0
    with locked(out):
        if model is not None:
            trained = exported_network(model, checkpoint, device)
        elif run is not None:
            trained = network_of_run(run, checkpoint, device)
        options = Options(
            samples=samples if uncertainty else None,
            grouping=Grouping(**{**trained.grouping, **given}),
            **settings,
        )
        for predicted in predict(trained, image, out, options, clock):
            num_images += 1
            num_before += not predicted.is_new
            num_reduced += predicted.is_reduced
            if not image.is_dir():
                print(*predicted.files, sep="\n")
    if image.is_dir():
        before = f", {num_before} of them by an earlier command" if num_before else ""
        print(f"{num_images} images predicted in {out}{before}")
    if num_new := num_images - num_before:
        print(f"seconds for {num_new} images: {clock.summary()}", file=sys.stderr)
    if num_reduced:
        print(
            f"images reduced to {options.max_megapixels} million pixels: {num_reduced}; "
            "--max-megapixels allows more",
            file=sys.stderr,
        )
