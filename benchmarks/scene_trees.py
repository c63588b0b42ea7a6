"""Generated scenes in a folder, made once and prepared for training."""

from pathlib import Path

from examples.cityscapes.data.prepare import prepare
from examples.rendered_scenes import synthesize


def generated_scenes(
    folder: Path, *, train: int, val: int = 2, size: tuple[int, int], seed: int
) -> Path:
    """Return a prepared tree of generated scenes. What an earlier run has made is kept."""
    tree = folder / f"scenes_{train}_{val}_{size[0]}x{size[1]}_{seed}"
    if not tree.is_dir():
        synthesize(tree, train=train, val=val, size=size, seed=seed)
    return prepared(folder, tree, size)


def prepared(folder: Path, data: Path, size: tuple[int, int]) -> Path:
    """Return a tree in the official layout, prepared at a size."""
    out = folder / f"{data.name}_prepared_{size[0]}x{size[1]}"
    prepare(data, out, size=size, workers=1)
    return out
