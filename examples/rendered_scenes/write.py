"""Writes synthetic scenes in the official folder layout, all or nothing."""

import argparse
import functools
import json
import zlib
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from tqdm import tqdm

from examples.common.command_line import height_and_width, whole_number
from examples.common.errors import InputError
from examples.common.folders import complete_folder, named_in_errors
from examples.common.lock import locked
from examples.rendered_scenes.camera import CALIBRATIONS
from examples.rendered_scenes.conditions import MIXED, TIMES, WEATHERS, sample_conditions
from examples.rendered_scenes.noise import noisy_disparity, noisy_labels
from examples.rendered_scenes.noise_record import NoiseRecord
from examples.rendered_scenes.render import Scene, render_scene

CITIES = {"train": ("arbora", "brunnhafen", "castelle"), "val": ("dornwald", "estrava")}
"""Names of invented cities. Each belongs to one split, whose scenes are spread over its cities."""

MIN_SIZE = (32, 64)
"""Height and width below which people and poles vanish."""

_COMPRESSION: dict[str, Any] = {"compress_level": 1, "compress_type": zlib.Z_RLE}
"""PNG's own filters leave little but runs to compress; a full search takes 3 times as long."""

_FRAME = 19
"""The frame of each sequence that the real data set labels."""


_CHOICE, _WEATHER, _NOISE = range(1, 4)
"""Appended to a scene's key, so that each of these uses has random numbers of its own."""

CLASSES = ("all", "common")


def synthesize(
    out: Path,
    *,
    train: int,
    val: int,
    size: tuple[int, int],
    seed: int,
    weather: str = "clear",
    time: str = "day",
    classes: str = "all",
    label_noise: float = 0.0,
    disparity_noise: float = 0.0,
) -> None:
    """Write a data set of random street scenes in the layout of CityScapes.

    Scene number i of a split depends on ``seed``, split and i only; weather and time change its
    image and nothing else, noise its labels or its disparity. The folder appears when it is
    complete: until then everything is in a folder beside it, removed if anything goes wrong. What a
    killed call has left there, the next one removes.

    Only training scenes have noise, so that figures on the validation split are measured
    against the truth. The files without noise are then in ``gtFine_clean/`` and
    ``disparity_clean/``, and ``noise.json`` records the amount of noise.

    Args:
        out: Folder to create; it may exist if it is empty.
        train: Number of training scenes.
        val: Number of validation scenes.
        size: Height and width of the images in pixels.
        seed: A whole number, at least 0.
        weather: One of ``WEATHERS``, or ``"mixed"``: any of them, scene by scene.
        time: One of ``TIMES``, or ``"mixed"``.
        classes: ``"all"`` 19, or the ``"common"`` 12.
        label_noise: Share of the pixels with a wrong class; see `noisy_labels`.
        disparity_noise: Standard deviation in pixels of the image; see `noisy_disparity`.

    Raises:
        InputError: If ``out`` is taken, or a number makes no sense.
    """
    _check(out, {"train": train, "val": val}, size, seed)
    _check_choices(weather, time, classes)
    noise = {"label_noise": label_noise, "disparity_noise": disparity_noise}
    _check_noise(**noise)
    options: dict[str, Any] = {"size": size, "seed": seed, "weather": weather, "time": time}
    jobs = [("train", i) for i in range(train)] + [("val", i) for i in range(val)]
    record = NoiseRecord()
    with complete_folder(out.resolve()) as folder:
        for split, index in tqdm(jobs, desc="synthesize", unit="scene"):
            clean = sample_scene(split, index, **options, classes=classes)
            noisy = clean
            if split == "train" and any(noise.values()):
                noisy = with_noise(clean, split, index, seed=seed, **noise)
                record.add(clean, noisy)
                changed = [*["gtFine"] * (label_noise > 0), *["disparity"] * (disparity_noise > 0)]
                write_scene(folder, split, index, clean, packages=changed, suffix="_clean")
            write_scene(folder, split, index, noisy)
        if any(noise.values()):
            text = json.dumps(
                {**noise, "splits": ["train"], "measured": record.as_json()}, indent=4
            )
            _write(folder / "noise.json", lambda file: file.write(text.encode()))


def sample_scene(
    split: str,
    index: int,
    *,
    size: tuple[int, int],
    seed: int,
    weather: str = "clear",
    time: str = "day",
    classes: str = "all",
) -> Scene:
    """Scene number ``index`` of a split, as `synthesize` writes it.

    Args:
        split: ``"train"`` or ``"val"``.
        index: Number of the scene, from 0.
        size: Height and width in pixels.
        seed: Seed of the data set.
        weather: One of ``WEATHERS``, or ``"mixed"``.
        time: One of ``TIMES``, or ``"mixed"``.
        classes: ``"all"`` 19, or the ``"common"`` 12.
    """
    city = list(CITIES).index(split) + index % len(CITIES[split])
    key = [seed, list(CITIES).index(split), index]
    conditions = sample_conditions(np.random.default_rng([*key, _CHOICE]), weather, time)
    calibration = CALIBRATIONS[city % len(CALIBRATIONS)]
    return render_scene(
        np.random.default_rng(key),
        size,
        calibration,
        conditions,
        [*key, _WEATHER],
        has_rare=classes == "all",
    )


def with_noise(
    scene: Scene, split: str, index: int, *, seed: int, label_noise: float, disparity_noise: float
) -> Scene:
    """The scene with errors in its labels and its disparity, as `synthesize` writes them.

    The amount of noise in one of them does not change the noise in the other.
    """
    key = [seed, list(CITIES).index(split), index, _NOISE]
    labels_rng, disparity_rng = (np.random.default_rng([*key, k]) for k in range(2))
    label_ids, instance_ids = noisy_labels(
        scene.label_ids, scene.instance_ids, label_noise, labels_rng
    )
    return replace(
        scene,
        label_ids=label_ids,
        instance_ids=instance_ids,
        disparity=noisy_disparity(scene.disparity, disparity_noise, disparity_rng),
    )


PACKAGES = ("leftImg8bit", "gtFine", "disparity", "camera")


def write_scene(
    root: Path,
    split: str,
    index: int,
    scene: Scene,
    *,
    packages: Collection[str] = PACKAGES,
    suffix: str = "",
) -> None:
    """Write the files of one scene under ``root``.

    Args:
        root: Folder of the data set.
        split: ``"train"`` or ``"val"``.
        index: Number of the scene.
        scene: What to write.
        packages: The top-level folders to write to.
        suffix: Added to the names of these folders.
    """
    city = CITIES[split][index % len(CITIES[split])]
    stem = f"{city}_{index:06d}_{_FRAME:06d}"
    for package, kind, pixels in (
        ("leftImg8bit", "leftImg8bit", scene.image),
        ("gtFine", "gtFine_labelIds", scene.label_ids),
        ("gtFine", "gtFine_instanceIds", scene.instance_ids),
        ("disparity", "disparity", scene.disparity),
    ):
        if package not in packages:
            continue
        picture = Image.fromarray(pixels)
        _write(
            root / f"{package}{suffix}" / split / city / f"{stem}_{kind}.png",
            functools.partial(picture.save, format="PNG", **_COMPRESSION),
        )
    if "camera" in packages:
        text = json.dumps(scene.camera.as_json(), indent=4)
        _write(
            root / f"camera{suffix}" / split / city / f"{stem}_camera.json",
            lambda file: file.write(text.encode()),
        )


def _write(path: Path, write: Callable[[BinaryIO], object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with named_in_errors(path), path.open("wb") as file:
        write(file)


def _check(out: Path, counts: dict[str, int], size: tuple[int, int], seed: int) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(
            f"{out} is already there and is not an empty folder. Choose another --out, or remove "
            "it first."
        )
    for split, count in counts.items():
        if count < 1:
            raise InputError(f"--{split} should be at least 1. Found {count}.")
    if size[0] < MIN_SIZE[0] or size[1] < MIN_SIZE[1]:
        raise InputError(
            f"--size should be at least {MIN_SIZE[0]}x{MIN_SIZE[1]} (height x width). Found "
            f"{size[0]}x{size[1]}."
        )
    if seed < 0:
        raise InputError(f"--seed should be at least 0. Found {seed}.")


def _check_choices(weather: str, time: str, classes: str) -> None:
    for flag, given, known in (
        ("weather", weather, (*WEATHERS, MIXED)),
        ("time", time, (*TIMES, MIXED)),
        ("classes", classes, CLASSES),
    ):
        if given not in known:
            raise InputError(f"--{flag} should be one of {', '.join(known)}. Found {given}.")


def _check_noise(label_noise: float, disparity_noise: float) -> None:
    if not 0 <= label_noise <= 0.5:
        raise InputError(
            f"--label-noise should be from 0 to 0.5, a share of the pixels. Found {label_noise}."
        )
    if not 0 <= disparity_noise <= 20:
        raise InputError(
            f"--disparity-noise should be from 0 to 20, in pixels. Found {disparity_noise}."
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--out", type=Path, required=True, help="new folder for the dataset")
    add("--train", type=whole_number, default=300, metavar="N", help="scenes for training")
    add("--val", type=whole_number, default=50, metavar="N", help="scenes for validation")
    text = "height and width of the images (128x256)"
    add("--size", type=height_and_width, default=(128, 256), metavar="HxW", help=text)
    add("--seed", type=whole_number, default=0)
    add("--classes", default="all", metavar="C", help="all 19 (default), or the common 12")
    add("--weather", default="clear", metavar="W", help="clear (default), rain, fog, snow or mixed")
    add("--time", default="day", metavar="T", help="day (default), dusk, night or mixed")
    text = "share of pixels with a wrong label in training scenes (0)"
    add("--label-noise", type=float, default=0.0, metavar="P", help=text)
    text = "standard deviation of the disparity noise of training scenes, in pixels (0)"
    add("--disparity-noise", type=float, default=0.0, metavar="S", help=text)


def run(out: Path, **options: Any) -> None:
    """Render street scenes."""
    with locked(out):
        synthesize(out, **options)
