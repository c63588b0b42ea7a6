"""Whether a value that was read from JSON has a given type.

The types are written as type hints: those in `_SCALARS`, `Literal`, unions, lists, tuples, dicts,
`TypedDict`s and dataclasses. Numbers are finite, and true and false are not numbers.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NewType, Union, get_args, get_origin, get_type_hints, is_typeddict

Count = NewType("Count", int)
PositiveInt = NewType("PositiveInt", int)
NotNegative = NewType("NotNegative", float)
Positive = NewType("Positive", float)
Measured = NewType("Measured", float)
"""A figure, which may have come out as NaN or as infinite."""

Check = Callable[[Any], None]
"""Raises `Mismatch` unless a value has a type."""


class Mismatch(Exception):  # noqa: N818 - `records.py` turns it into an `InputError`
    """A value that does not have the expected type.

    Args:
        message: What was expected and what was found.
        where: Which part of the value it is about, such as `.size[1]`; empty for all of it.
    """

    def __init__(self, message: str, where: str = "") -> None:
        super().__init__(message)
        self.message, self.where = message, where

    def __str__(self) -> str:
        return f"`{self.where.removeprefix('.')}` {self.message}" if self.where else self.message

    def inside(self, key: str | int) -> "Mismatch":
        """Return the same about a value that holds this one under `key`."""
        step = f"[{key}]" if isinstance(key, int) else f".{key}"
        return Mismatch(self.message, step + self.where)


@cache
def checker_of(kind: Any) -> Check:
    """Return the check of a type; build it once and reuse it, as files may have many values."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: None
    if kind in _SCALARS:
        return _scalar(*_SCALARS[kind])
    if origin is Literal:
        names = "one of " * (len(arguments) > 1) + ", ".join(map(str, arguments))
        return _scalar(lambda value: value in arguments, names)
    if origin in (Union, UnionType):
        return _any_of([checker_of(option) for option in arguments])
    if origin is list or (origin is tuple and arguments[1:] == (...,)):
        return _list_of(checker_of(arguments[0]))
    if origin is tuple:
        return _row_of([checker_of(item) for item in arguments])
    if origin is dict:
        return _table_of(*map(checker_of, arguments))
    parts = {name: checker_of(part) for name, part in get_type_hints(kind).items()}
    if is_typeddict(kind):
        return _object_of(parts, kind.__required_keys__, may_have_others=True)
    needed = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    return _object_of(parts, needed, may_have_others=False)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # False for NaN


TOO_LARGE = 2**63
"""The smallest number that is too large for the integers of torch and numpy."""

# By `type`, as `isinstance` takes a bool for an int. No file name holds a null character.
_SCALARS: dict[Any, tuple[Callable[[Any], bool], str]] = {
    bool: (lambda value: type(value) is bool, "true or false"),
    int: (lambda v: type(v) is int and -TOO_LARGE <= v < TOO_LARGE, "a whole number"),
    Count: (lambda v: type(v) is int and 0 <= v < TOO_LARGE, "a whole number from 0 up"),
    PositiveInt: (lambda v: type(v) is int and 1 <= v < TOO_LARGE, "a whole number from 1 up"),
    Measured: (lambda value: type(value) is float or _is_number(value), "a number"),
    float: (_is_number, "a finite number"),
    NotNegative: (lambda value: _is_number(value) and value >= 0, "a finite number from 0 up"),
    Positive: (lambda value: _is_number(value) and value > 0, "a finite number above 0"),
    str: (lambda value: type(value) is str and "\0" not in value, "a text"),
    Path: (lambda value: type(value) is str and "\0" not in value, "a path"),
    NoneType: (lambda value: value is None, "null"),
}


def _scalar(is_right: Callable[[Any], bool], what: str) -> Check:
    def check(value: Any) -> None:
        if not is_right(value):
            raise _other_than(what, value)

    return check


def _any_of(options: list[Check]) -> Check:
    def check(value: Any) -> None:
        mismatches = []
        for option in options:
            try:
                return option(value)
            except Mismatch as mismatch:  # noqa: PERF203 - rarely more than null is tried
                mismatches.append(mismatch)
        raise mismatches[0]  # the others are null and the like

    return check


def _list_of(item: Check) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, list):
            raise _other_than("a list", value)
        _check_parts(enumerate(value), item)

    return check


def _row_of(items: list[Check]) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, list) or len(value) != len(items):
            raise _other_than(f"a list of {len(items)}", value)
        for index, item in enumerate(items):
            _check_parts([(index, value[index])], item)

    return check


def _table_of(key: Check, item: Check) -> Check:
    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise _other_than("an object", value)
        for name in value:
            key(name)
        _check_parts(value.items(), item)

    return check


def _check_parts(parts: Iterable[tuple[str | int, Any]], check: Check) -> None:
    name: str | int = 0
    try:
        for name, part in parts:  # noqa: B007 - the last one is named below
            check(part)
    except Mismatch as mismatch:
        raise mismatch.inside(name) from None


def _object_of(parts: dict[str, Check], needed: Iterable[str], *, may_have_others: bool) -> Check:
    needed = frozenset(needed)

    def check(value: Any) -> None:
        if not isinstance(value, dict):
            raise _other_than("an object", value)
        found, name = 0, ""
        try:
            for name, part in parts.items():
                if name in value:
                    part(value[name])
                    found += 1
                elif name in needed:
                    raise Mismatch("is missing")
        except Mismatch as mismatch:
            raise mismatch.inside(name) from None
        if found < len(value) and not may_have_others:
            unknown = min(value.keys() - parts.keys())
            raise Mismatch("is not known to this version").inside(unknown)

    return check


def _other_than(what: str, value: Any) -> Mismatch:
    if isinstance(value, dict | list):
        found = "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    else:
        found = json.dumps(value)
    return Mismatch(f"should be {what}; found {found if len(found) <= 40 else found[:40] + '...'}")
