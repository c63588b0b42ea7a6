"""What `torchrun` tells a process that it has started."""

import os


def was_started_by_torchrun() -> bool:
    """Whether `torchrun` has started this process, perhaps beside others."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ)


def is_first() -> bool:
    """Whether this process writes the files: it is the only one, or the first of several."""
    return not was_started_by_torchrun() or os.environ["RANK"] == "0"
