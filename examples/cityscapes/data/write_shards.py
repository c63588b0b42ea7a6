"""Writing shards, in several processes side by side."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from examples.cityscapes.data.files import Frame
from examples.cityscapes.data.shards import remove_partial, write_shard
from examples.common.errors import InputError
from examples.common.interrupt import children_without_ctrl_c

Job = tuple[Path, list[Frame]]
"""A shard to write: its folder and its frames."""


def write_shards(jobs: list[Job], data: Path, size: tuple[int, int], workers: int) -> Iterator[int]:
    """Write shards; yields the number of frames of each one that is complete.

    Raises:
        InputError: If a frame is broken, or a process was killed. Complete shards remain.
    """
    if workers == 1 or len(jobs) <= 1:
        for folder, frames in jobs:
            write_shard(folder, frames, data, size)
            yield len(frames)
        return
    # Not forked: torch has threads, and a fork copies their locks but not the threads.
    context = multiprocessing.get_context("spawn")
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(min(workers, len(jobs)), context, initializer=_start_worker)
    try:
        with children_without_ctrl_c():  # submitting a job starts a process
            futures = {pool.submit(write_shard, *job, data, size): len(job[1]) for job in jobs}
        for future in as_completed(futures):
            future.result()
            yield futures[future]
    except BrokenProcessPool as error:
        raise InputError(
            "--workers: one of them was killed, most likely for want of memory; use fewer, and "
            "the same command goes on where it was"
        ) from error
    except KeyboardInterrupt:
        # Waiting for a shard that is being written can take half a minute.
        for process in multiprocessing.active_children():
            if process not in others:
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        for folder, _ in jobs:
            remove_partial(folder)


def _start_worker() -> None:
    torch.set_num_threads(1)  # the other cores belong to the other workers

    def follow(parent: multiprocessing.process.BaseProcess) -> None:
        parent.join()
        os._exit(1)

    # If the parent is killed, a worker would otherwise wait for work without end.
    parent = multiprocessing.parent_process()
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
