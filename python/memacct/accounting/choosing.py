"""Which GPU to start on, and with how much of it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from memacct._units import GIB, MIB
from memacct.accounting.advice import UTILIZATION_STEPS, utilization_at_most

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# What a process's CUDA context and its libraries take before an engine reads what is free: 287
# to 843 MB were seen (pytorch#86509, pytorch#86493, unsloth#8669). The engine asks for a share of
# the whole card, and is refused if its own context is not free beside it.
CONTEXT_BYTES = GIB
# A neighbour that stood still for some seconds is not bound to: what an allocator's next
# segments take.
SMALLEST_MARGIN_BYTES = 256 * MIB
# A utilization is advised in hundredths: what people type.
_STEP = UTILIZATION_STEPS // 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A GPU, or MIG instance, that could be started on.

    Attributes:
        promised_bytes: of what is free, what others have reserved and not taken yet.
        still: nobody has moved on it for as long as was asked for.
        holders: who holds memory there, in words.
    """

    uuid: str
    index: int | None
    name: str
    total_bytes: int
    free_bytes: int
    promised_bytes: int = 0
    still: bool = True
    holders: str = ""

    @property
    def available_bytes(self) -> int:
        """What is free, and promised to nobody."""
        return max(0, self.free_bytes - self.promised_bytes)

    def __str__(self) -> str:
        return self.uuid if self.index is None else f"GPU {self.index}"


def choose(
    candidates: Sequence[Candidate], need_bytes: Mapping[str, int] | None, count: int = 1
) -> tuple[Candidate, ...]:
    """Returns the GPUs with the most available of those that are still and have enough.

    Args:
        candidates: in the order of preference among equals.
        need_bytes: what is to be available, by UUID; None: whatever is there, but then nothing
            of the GPU may be promised to others.
        count: as many as that, or none at all.
    """
    fitting = [each for each in candidates if each.still and _fits(each, need_bytes)]
    fitting.sort(key=lambda each: -each.available_bytes)  # stable
    return tuple(fitting[:count]) if len(fitting) >= count else ()


def _fits(candidate: Candidate, need_bytes: Mapping[str, int] | None) -> bool:
    if need_bytes is None:
        return candidate.available_bytes > 0 and not candidate.promised_bytes
    return candidate.available_bytes >= need_bytes[candidate.uuid]


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of a GPU an engine can ask for, and what was left out of it and why.

    Attributes:
        utilization: for ``gpu_memory_utilization``, in hundredths.
        asked_bytes: what an engine asks for with it.
        margin_bytes: what is left for neighbours to grow by: as much as they were seen to move,
            and no less than 256 MiB.
        context_bytes: what is left for the engine's own CUDA context and libraries.
    """

    utilization: float
    asked_bytes: int
    margin_bytes: int
    context_bytes: int


def share_of(
    total_bytes: int, lowest_free_bytes: int, moved_bytes: int, promised_bytes: int = 0
) -> Share | None:
    """Returns the largest share that neighbours who go on as they did leave alone; None: none.

    Args:
        total_bytes: the device's.
        lowest_free_bytes: the least that was free while it was watched.
        moved_bytes: between the most and the least that was free meanwhile.
        promised_bytes: what other starts have reserved there.
    """
    margin = max(SMALLEST_MARGIN_BYTES, moved_bytes)
    limit = lowest_free_bytes - promised_bytes - margin - CONTEXT_BYTES
    most = utilization_at_most(total_bytes, limit) if limit > 0 else None
    hundredths = 0 if most is None else round(most * UTILIZATION_STEPS) // _STEP
    if hundredths == 0:
        return None
    return Share(
        utilization=hundredths / 100,
        asked_bytes=-(-total_bytes * hundredths // 100),
        margin_bytes=margin,
        context_bytes=CONTEXT_BYTES,
    )
