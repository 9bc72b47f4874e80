"""``--kv-cache-memory=N`` with the neighbours as they are, beside vLLM's own closing line.

vLLM's line counts what was free at the start; what neighbours took or released since is not in
it, and CUDA graphs are in it twice, as estimated and as captured.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch

from memacct._units import MIB, format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from memacct.integrations.vllm._gpu_session import GPUSession

logger = logging.getLogger("vllm.memacct")

# vLLM leaves as much in its own line: memory profiling may be a little below the truth.
BUFFER_BYTES = 150 * MIB


class CacheSizes:
    """Follows one worker from the allocation of its KV cache to the end of its warm-up."""

    def __init__(self, session: GPUSession) -> None:
        self.session = session
        self._kv_cache_bytes: int | None = None

    def around_allocation(
        self, original: Callable[..., object], *args: object, **kwargs: object
    ) -> object:
        """Around ``initialize_from_config``: the KV cache is what torch allocates meanwhile."""
        ordinal = self.session.device_ordinal
        before = torch.cuda.memory_allocated(ordinal)
        result = original(*args, **kwargs)
        grown = torch.cuda.memory_allocated(ordinal) - before
        # Other buffers are made there too: the KV cache itself is never above its budget.
        budget = self.session.shortfall.available_bytes
        self._kv_cache_bytes = grown if budget is None else min(grown, budget)
        return result

    def around_warm_up(
        self, original: Callable[..., object], *args: object, **kwargs: object
    ) -> object:
        """Around ``compile_or_warm_up_model``: all that stays has been taken."""
        result = original(*args, **kwargs)
        self.session.guard(self._say)
        return result

    def _say(self) -> None:
        sizes = self.sizes()
        if sizes is None:
            return
        requested, all_free = sizes
        logger.info(
            "memacct: with the neighbours as they are now, `--kv-cache-memory=%d` (%s) fits into "
            "the requested memory, and `--kv-cache-memory=%d` (%s) takes all that is free. "
            "vLLM's own line counts what was free at the start.",
            requested,
            format_bytes(requested),
            all_free,
            format_bytes(all_free),
        )

    def sizes(self) -> tuple[int, int] | None:
        """Returns the KV cache that fits into the request, and the one that fits the device.

        None before the allocation, where nothing was profiled, and where neither is positive.
        """
        follower = self.session.follower
        kv_cache = self._kv_cache_bytes
        if follower is None or kv_cache is None or self.session.profiled is None:
            return None
        free = self.session.raw_free()
        all_there_is = follower.baseline.free_bytes - self.session.grown_bytes(free)
        own = all_there_is - free - kv_cache - _returnable_bytes(self.session.device_ordinal)
        kept = own + self.session.activations_peak_bytes + BUFFER_BYTES
        asked = int(self.session.worker.requested_memory)
        sizes = min(asked, all_there_is) - kept, all_there_is - kept
        return sizes if sizes[0] > 0 else None


def _returnable_bytes(ordinal: int) -> int:
    """Cached memory that the next step's peak can take: whole segments, and of no graph's pool.

    By the segments' own sums: `fragmentation` also looks for the owners of private pools, which
    is a walk over all of the process's objects.
    """
    return sum(
        segment["total_size"]
        for segment in torch.cuda.memory_snapshot()
        if segment["device"] == ordinal
        and segment["active_size"] == 0
        and tuple(segment.get("segment_pool_id", (0, 0))) == (0, 0)
    )
