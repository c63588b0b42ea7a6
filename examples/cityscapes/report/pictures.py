"""Predictions drawn for people: panels with a key of the colours, an overlay, and doubt as maps."""

import io
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from examples.cityscapes.protocols import Protocol
from examples.cityscapes.scene.colors import color_classes, color_instances
from examples.cityscapes.scene.maps import Arrays

DOUBTS = {
    "class_epistemic": ("classes: epistemic", "mutual information, nats"),
    "class_aleatoric": ("classes: aleatoric", "expected entropy, nats"),
    "inverse_depth_epistemic": ("inverse depth: epistemic", "standard deviation, px"),
    "inverse_depth_aleatoric": ("inverse depth: aleatoric", "sigma of the noise, px"),
    "offset_epistemic": ("offsets: epistemic", "standard deviation, px"),
}
"""Title and unit of the maps of `predict --uncertainty`."""

_WIDTH = 10.0  # inches
_TALLEST = 9.0  # inches, of one picture: those of tall images become narrower instead
_NO_MAP = "one sigma for all pixels\n(--depth-noise per-pixel learns a map)"


def draw_panels(arrays: Arrays, protocol: Protocol) -> bytes:
    """Draw input, classes, instances and inverse depth as one PNG, with a key of the colours."""
    figure = _figure(arrays["image"], rows=2, extra=1.1)
    panels = {"input": arrays["image"], "classes": None, "instances": None, "inverse depth": None}
    if "classes" in arrays:
        panels["classes"] = color_classes(arrays["classes"], protocol.palette)
        _add_key(figure, protocol, np.unique(arrays["classes"]))
    if "instances" in arrays:
        panels["instances"] = color_instances(arrays["instances"])
    if "inverse_depth" in arrays:
        panels["inverse depth"] = arrays["inverse_depth"]
    for axes, (title, picture) in zip(figure.subplots(2, 2).flat, panels.items(), strict=True):
        axes.set_axis_off()
        axes.set_title(title if picture is not None else f"{title}: not trained", fontsize=11)
        if title == "inverse depth" and picture is not None:
            _show_scale(figure, axes, picture, protocol.depth_label, "magma", picture.max())
        elif picture is not None:
            axes.imshow(picture, interpolation="nearest")
    return _png(figure)


def draw_uncertainty(arrays: Arrays) -> bytes:
    """Draw every kind of doubt that there is, each with its own scale, beside the input."""
    found = {name: arrays[name] for name in DOUBTS if name in arrays}
    names: list[str | None] = list(found)
    if "inverse_depth_epistemic" in found and "inverse_depth_aleatoric" not in found:
        names.insert(names.index("inverse_depth_epistemic") + 1, None)
    rows = -(-(len(names) + 1) // 2)
    figure = _figure(arrays["image"], rows=rows, extra=0.4)
    cells = list(figure.subplots(rows, 2, squeeze=False).flat)
    for axes in cells:
        axes.set_axis_off()
    for axes, name in zip(cells, names, strict=False):
        if name is None:
            axes.text(0.5, 0.5, _NO_MAP, ha="center", va="center", transform=axes.transAxes)
            continue
        title, unit = DOUBTS[name]
        axes.set_title(title, fontsize=11)
        # A single pixel at the edge of an object must not darken everything else.
        largest = float(np.percentile(found[name], 99.5))
        _show_scale(figure, axes, found[name], unit, "viridis", largest, extend="max")
    cells[len(names)].imshow(arrays["image"])
    cells[len(names)].set_title("input", fontsize=11)
    return _png(figure)


def draw_overlay(
    image: np.ndarray,
    classes: np.ndarray,
    instances: np.ndarray | None,
    protocol: Protocol,
) -> bytes:
    """Blend the colours of the classes over an image, and outline instances, as a PNG."""
    blended = (image.astype(np.uint16) + color_classes(classes, protocol.palette)) // 2
    if instances is not None:
        blended[outlines(instances, thickness=1 + image.shape[0] // 400)] = 255
    return _encoded(blended.astype(np.uint8))


def outlines(instances: np.ndarray, thickness: int = 1) -> np.ndarray:
    """Return the pixels of instances that are closer than `thickness` to something else."""
    inner = instances > 0
    for _ in range(thickness):
        padded = np.pad(np.where(inner, instances, 0), 1, mode="edge")
        around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        inner = inner & np.all([side == instances for side in around], axis=0)
    return (instances > 0) & ~inner


def draw_key(protocol: Protocol) -> bytes:
    """Draw the key of all class colours as a PNG."""
    figure = Figure(figsize=(_WIDTH, 1.0), dpi=120)
    _add_key(figure, protocol, np.arange(len(protocol.class_names)), location="center")
    return _png(figure)


def _figure(image: np.ndarray, *, rows: int, extra: float) -> Figure:
    height, width = image.shape[:2]
    # Of each half a tenth goes to the scale beside the picture.
    row = min(0.45 * _WIDTH * height / width, _TALLEST) + 0.3
    return Figure(figsize=(_WIDTH, rows * row + extra), dpi=120, layout="constrained")


def _show_scale(
    figure: Figure,
    axes: Axes,
    values: np.ndarray,
    unit: str,
    colors: str,
    largest: float,
    **settings: Any,
) -> None:
    shown = axes.imshow(
        values, cmap=colors, vmin=0, vmax=max(float(largest), 1e-6), interpolation="nearest"
    )
    # An inset makes the scale as high as the picture; scales with axes of their own are not.
    beside = axes.inset_axes((1.02, 0.0, 0.035, 1.0))
    bar = figure.colorbar(shown, cax=beside, **settings)
    bar.set_label(unit, fontsize=9)
    beside.tick_params(labelsize=8)


def _add_key(
    figure: Figure,
    protocol: Protocol,
    classes: np.ndarray,
    location: str = "outside lower center",
) -> None:
    handles = [
        Patch(
            facecolor=protocol.palette[k] / 255,
            edgecolor="0.4",
            linewidth=0.5,
            label=protocol.class_names[k],
        )
        for k in classes
        if k < len(protocol.class_names)
    ]
    figure.legend(handles=handles, loc=location, ncols=7, frameon=False, fontsize=9)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _encoded(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
