"""What `torchrun` tells a process that it has started."""

import os


def is_one_of_several() -> bool:
    """Whether `torchrun` has started this process, perhaps beside others."""
    return {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= set(os.environ)


def is_first() -> bool:
    """Whether this process is the one that writes: it is alone, or the first of several."""
    return not is_one_of_several() or os.environ["RANK"] == "0"
