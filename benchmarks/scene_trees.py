"""Generated scenes in a folder, made once, in the official layout and prepared."""

from pathlib import Path

from examples.cityscapes.data.prepare import prepare
from examples.rendered_scenes import synthesize


def raw_tree(
    folder: Path, *, train: int, val: int = 2, size: tuple[int, int], seed: int = 0
) -> Path:
    """Return a tree of generated scenes, written unless it is there from an earlier run."""
    tree = folder / f"scenes_{train}_{val}_{size[0]}x{size[1]}_{seed}"
    if not tree.is_dir():
        synthesize(tree, train=train, val=val, size=size, seed=seed)
    return tree


def prepared_tree(folder: Path, raw: Path, size: tuple[int, int]) -> Path:
    """Return the tree prepared at a size; what is done already is left alone."""
    tree = folder / f"{raw.name}_prepared_{size[0]}x{size[1]}"
    prepare(raw, tree, size=size, workers=1)
    return tree
