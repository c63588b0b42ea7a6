"""The protocols: the tasks of the tables in the literature, and the labels that count there."""

from dataclasses import dataclass

import numpy as np

from examples.cityscapes.labels import CATEGORY_NAMES, CATEGORY_OF, CLASS_NAMES, PALETTE


@dataclass(frozen=True, eq=False)
class Protocol:
    """Tasks and labels that belong together, so that results can be compared."""

    name: str
    tasks: tuple[str, ...]
    """What may be trained, and is trained by default."""
    class_names: tuple[str, ...]
    """The classes of the semantic task, by number."""
    class_of: np.ndarray
    """Number of the class by train id, uint8, shape (19,)."""
    palette: np.ndarray
    """RGB colour by number of the class, uint8."""
    depth_label: str
    """The label of the colour scale beside a map of inverse depth."""
    depth_is_in_pixels: bool
    """Whether inverse depths are disparities in pixels, which grow with the size of the image."""
    has_zero_depth: bool
    """Whether an inverse depth of 0 is a valid label, such as that of the sky."""


THREE_TASK = Protocol(
    "three-task",
    ("semantic", "instance", "depth"),
    CLASS_NAMES,
    np.arange(len(CLASS_NAMES), dtype=np.uint8),
    PALETTE,
    depth_label="disparity, px",
    depth_is_in_pixels=True,
    has_zero_depth=True,
)
"""The tasks of Kendall, Gal and Cipolla (CVPR 2018)."""

TWO_TASK = Protocol(
    "two-task",
    ("semantic", "depth"),
    CATEGORY_NAMES,
    CATEGORY_OF.astype(np.uint8),
    # The colour of its first class stands for a category.
    PALETTE[np.unique(CATEGORY_OF, return_index=True)[1]],
    depth_label="inverse depth",  # papers do not say in which unit their arrays are
    depth_is_in_pixels=False,
    has_zero_depth=False,
)
"""The tasks of papers on multi-task learning since MTAN (Liu et al., CVPR 2019)."""

PROTOCOLS = {protocol.name: protocol for protocol in (THREE_TASK, TWO_TASK)}
"""All protocols by the name that `--protocol` takes."""
