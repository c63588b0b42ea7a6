"""Flags that several commands have, and one for every field of `TrainConfig`."""

import argparse
import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

from examples.cityscapes.config import TrainConfig
from examples.cityscapes.protocols import PROTOCOLS
from examples.cityscapes.settings import BACKBONES, DEPTH_NOISE, DEVICES, LABELS, PRECISIONS
from examples.common.command_line import height_and_width
from examples.common.flag_text import flag_of, value_text


def add_config_flags(add: Callable[..., Any]) -> None:
    """Add `--field-name` for every field of `TrainConfig`; its docstring is the help.

    Args:
        add: `add_argument` of a parser that leaves out the flags that are not given: a preset, or
            the recorded run, decides their values.
    """
    kinds, texts = get_type_hints(TrainConfig), field_docstrings()
    for field in dataclasses.fields(TrainConfig):
        flag = flag_of(field.name)
        text = texts[field.name].replace("%", "%%").replace("`", "")
        if field.default is not dataclasses.MISSING:
            text = f"{text.rstrip('.')} ({value_text(field.name, field.default)})"
        kind = kinds[field.name]
        if kind is bool:
            add(flag, action=argparse.BooleanOptionalAction, help=text)
        else:
            choices = {
                "backbone": BACKBONES,
                "depth_noise": DEPTH_NOISE,
                "device": DEVICES,
                "labels": LABELS,
                "precision": PRECISIONS,
                "protocol": tuple(PROTOCOLS),
            }.get(field.name)
            metavar = None if choices else field.name.upper()
            add(flag, type=parser_of(kind), choices=choices, metavar=metavar, help=text)


def add_checkpoint_flag(add: Callable[..., Any]) -> None:
    """Add `--checkpoint`."""
    text = "the run's last checkpoint (default), or the best by validation"
    add("--checkpoint", choices=("last", "best"), default="last", help=text)


def add_grouping_flags(add: Callable[..., Any]) -> None:
    """Add the options of `Grouping`, which keeps its defaults where they are not given."""
    nothing = {"default": argparse.SUPPRESS}
    add("--clustering", metavar="M", help="clusters votes: optics (default) or hdbscan", **nothing)
    text = "distance of neighbouring votes, as part of sqrt(2 * area), the width if 2:1 (0.012)"
    add("--reach", type=float, metavar="X", help=text, **nothing)
    text = "area of the smallest instance, as a fraction of a typical one (0.06)"
    add("--min-area", type=float, metavar="X", help=text, **nothing)


def field_docstrings() -> dict[str, str]:
    """Return the string below each field of `TrainConfig`, on one line."""
    definition: Any = ast.parse(textwrap.dedent(inspect.getsource(TrainConfig))).body[0]
    found = {}
    for field, text in itertools.pairwise(definition.body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            found[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    return found


def parser_of(kind: Any) -> Callable[[str], object]:
    """Return what reads a field of this type from the command line."""
    options = [option for option in get_args(kind) if option is not type(None)]
    if type(None) in get_args(kind):
        read = parser_of(options[0])
        return _named(
            lambda text: None if text == "none" else read(text), f"{read.__name__} or none"
        )
    if kind == tuple[int, int]:
        return height_and_width
    if options:  # a tuple of anything else
        item = parser_of(options[0])
        return _named(
            lambda text: tuple(item(part.strip()) for part in text.split(",")), "list with commas"
        )
    return {int: int, float: float, Path: Path, str: str}[kind]


def _named(read: Callable[[str], object], name: str) -> Callable[[str], object]:
    read.__name__ = name  # argparse: "invalid list with commas value: 'x'"
    return read
