"""A trained network as one ONNX file, for programs that know nothing of PyTorch."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import uncertainty_mtl
from examples.cityscapes.config import load_config
from examples.cityscapes.evaluation.evaluate import load_trained
from examples.cityscapes.flags import add_checkpoint_flag, add_grouping_flags
from examples.cityscapes.protocols import PROTOCOLS
from examples.cityscapes.scene.grouping import Grouping
from examples.cityscapes.scene.onnx_export import check_can_export, to_onnx
from examples.common.checkpoint import write_atomically
from examples.common.errors import InputError
from examples.common.lock import locked


def export(run: Path, out: Path, grouping: Grouping, checkpoint: str = "last") -> float:
    """Write the network of a run; return the largest difference of its outputs from PyTorch's.

    Args:
        run: Folder of the run.
        out: The file; an earlier one is replaced.
        grouping: How votes become instances, which `predict --model` follows.
        checkpoint: `last` or `best`.
    """
    if out.is_dir():
        raise InputError(f"--out: {out} is a folder; give a file, such as {out}/scenes.onnx")
    check_can_export()
    config = load_config(run)
    # Always in float32 and without recomputation, which concern training, not the network itself.
    plain = dataclasses.replace(config, precision="float32", checkpoint_activations=False)
    model = load_trained(plain, checkpoint)
    description = {
        "format": 1,
        "protocol": config.protocol,
        "tasks": list(config.tasks),
        "size": config.size,
        "classes": list(PROTOCOLS[config.protocol].class_names),
        "grouping": vars(grouping),
        "version": uncertainty_mtl.__version__,
    }
    content, difference = to_onnx(model, description)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    return difference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add = parser.add_argument
    add("--run", type=Path, required=True, help="folder of the run")
    add("--out", type=Path, required=True, metavar="FILE", help="the ONNX file to write")
    add_checkpoint_flag(add)
    add_grouping_flags(add)


def run(run: Path, out: Path, checkpoint: str, **grouping: Any) -> None:
    """Export a run's network."""
    with locked(out):
        difference = export(run, out, Grouping(**grouping), checkpoint)
    print(f"{out}: its outputs differ from PyTorch's by at most {difference:.1e}")
