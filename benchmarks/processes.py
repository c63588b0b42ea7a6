"""The same measurement in several processes, each of which begins anew."""

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import ParamSpec, TypeVar

import torch

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def in_processes(
    count: int,
    measure: Callable[Arguments, Result],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> list[Result]:
    """Return what `measure` returns in each of so many fresh processes, one after another.

    No number of rounds averages out what stays as it is while a process lives. The loss of a map
    of 20 MB took 0.92 to 1.24 times as long as its peer, from one process to the next, with half of
    that spread within each: probably by where its memory happens to lie in the caches.

    Args:
        count: How many; 1 is this process itself.
        measure: A function of a module; it and its arguments are sent to the process.
        args: Its arguments.
        kwargs: The same.
    """
    if count == 1:
        return [measure(*args, **kwargs)]
    results = []
    for _ in range(count):
        with ProcessPoolExecutor(
            max_workers=1,
            mp_context=get_context("spawn"),
            initializer=torch.set_num_threads,
            initargs=(torch.get_num_threads(),),
        ) as process:
            results.append(process.submit(measure, *args, **kwargs).result())
    return results
