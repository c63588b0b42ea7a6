"""What a trained network sees in one image: four panels, and the arrays behind them."""

import io
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from examples.cityscapes.checkpoint import write_atomically
from examples.cityscapes.colors import color_classes, color_disparity, color_instances
from examples.cityscapes.config import TrainConfig
from examples.cityscapes.device import pick_device
from examples.cityscapes.errors import InputError
from examples.cityscapes.evaluate import by_network, load_trained
from examples.cityscapes.files import check_aspect, read_rgb
from examples.cityscapes.instances import Grouping, find_instances
from examples.cityscapes.panoptic import panoptic_ids
from examples.cityscapes.samples import resize_rgb

Arrays = dict[str, np.ndarray]


def predict(
    config: TrainConfig,
    image: Path,
    out: Path,
    device: str = "auto",
    grouping: Grouping | None = None,
) -> list[Path]:
    """Predict one image by the run in `config.out`.

    Writes `NAME_panels.png` and `NAME_arrays.npz`, at the size of the network's input.

    Args:
        config: The run's configuration.
        image: An RGB image of the same shape as those trained on.
        out: Folder for both files.
        device: `auto`, `cpu` or `cuda`.
        grouping: How votes become instances.

    Returns:
        The paths of the two files.
    """
    if not image.is_file():
        raise InputError(f"{image}: no such file")
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is not a folder")
    pixels = read_rgb(image)
    check_aspect(image, pixels.shape[:2], config.size)
    network = by_network(load_trained(config), pick_device(device))
    resized = resize_rgb(pixels, config.size)
    maps = network(resized.unsqueeze(0))
    arrays = {"image": resized.permute(1, 2, 0).numpy(), **to_arrays(maps, grouping)}

    out.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    paths = [out / f"{image.stem}_panels.png", out / f"{image.stem}_arrays.npz"]
    write_atomically(paths[0], draw_panels(arrays))
    write_atomically(paths[1], buffer.getvalue())
    return paths


def to_arrays(maps: dict[str, torch.Tensor], grouping: Grouping | None = None) -> Arrays:
    """Return the predictions for one image, and the instances that follow from them.

    `classes` are train ids, `offsets` (2, H, W) and `inverse_depth` are in pixels (a disparity),
    `instances` are numbers from 1 up, and `panoptic` has classes and instances in one, numbered as
    in `instanceIds` files. Both need the classes and the offsets.
    """
    arrays: Arrays = {}
    if "semantic" in maps:
        arrays["classes"] = maps["semantic"][0].numpy().astype(np.uint8)
    if "instance" in maps:
        arrays["offsets"] = maps["instance"][0].numpy()
    if "depth" in maps:
        # A disparity below 0 has no meaning; the network is not kept from predicting one.
        arrays["inverse_depth"] = maps["depth"][0, 0].clamp(min=0).numpy()
    if "semantic" in maps and "instance" in maps:
        arrays["instances"] = find_instances(arrays["offsets"], arrays["classes"], grouping)
        arrays["panoptic"] = panoptic_ids(arrays["classes"], arrays["instances"])
    return arrays


def draw_panels(arrays: Arrays) -> bytes:
    """Draw input, classes, instances and inverse depth as one PNG."""
    height, width = arrays["image"].shape[:2]
    figure = Figure(figsize=(10, 10 * height / width + 0.7), dpi=120, layout="constrained")
    panels = {"input": arrays["image"], "classes": None, "instances": None, "inverse depth": None}
    if "classes" in arrays:
        panels["classes"] = color_classes(arrays["classes"])
    if "instances" in arrays:
        panels["instances"] = color_instances(arrays["instances"])
    if "inverse_depth" in arrays:
        disparity = arrays["inverse_depth"]
        panels["inverse depth"] = color_disparity(disparity, float(disparity.max()))
    for axes, (title, picture) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.set_axis_off()
        axes.set_title(title if picture is not None else f"{title}: not trained")
        if picture is not None:
            axes.imshow(picture, interpolation="nearest")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
