"""Several processes measure together: each reads its share of the text, and all know the whole.

    torchrun --nproc-per-node 2 -m lessonkit.cli perplexity MODEL

Every process has the whole model, on a GPU of its own where there are GPUs, and reads every n-th
group of pieces. What it found for each piece goes to all others, a few numbers a token at most.
Groups are the same for any number of processes, and sums are formed at the end, in the text's
order; so the result is that of one process, to the last bit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def joined() -> Iterator[bool]:
    """Join the processes that `torchrun` (or `accelerate launch`) started, as long as the block.

    Yields whether this is the process that speaks for all. Without such a launcher there is
    nothing to join, and it is. Only numbers for the report travel, so gloo serves for GPUs too.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield True
        return
    import torch
    from torch import distributed

    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    distributed.init_process_group("gloo")
    try:
        yield distributed.get_rank() == 0
    finally:
        distributed.destroy_process_group()


def share(work: Sequence[Item]) -> Sequence[Item]:
    """The part of the work that is this process's: all of it where it is alone."""
    rank, count = _place()
    return work[rank::count]


def gathered(found: Mapping[int, Item]) -> dict[int, Item]:
    """What all processes found, each piece by its position, in the text's order."""
    parts: list[Mapping[int, Item]] = [found]
    if _place()[1] > 1:
        from torch import distributed

        parts = [{}] * distributed.get_world_size()
        distributed.all_gather_object(parts, dict(found))
    everything = {position: item for part in parts for position, item in part.items()}
    return dict(sorted(everything.items()))


def _place() -> tuple[int, int]:
    """This process's number, and how many there are."""
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
