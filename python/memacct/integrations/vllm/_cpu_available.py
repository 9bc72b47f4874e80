"""What a CPU worker may still take: its node's memory, and its control groups' room.

Both limit it. A control group's usage has the page cache in it: weights that were just
read are charged to the group although they can go, so cache counts as room there, as it
does in vLLM's reading of the node.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct.accounting.budget import wall_pause

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from memacct._core import CgroupMemory

USAGE_FUNCTION = "get_cgroup_memory_usage"
# Where vLLM looks, whatever is mounted elsewhere.
CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """Two readings of one node at one time.

    Attributes:
        node_bytes: the node's, by vLLM's own arithmetic with reclaimable cache counted.
        group_bytes: the room in the control group that limits; None: none does.
        stock_bytes: what vLLM would have found available.
    """

    node_bytes: int
    group_bytes: int | None
    stock_bytes: int

    @property
    def usable_bytes(self) -> int:
        """What both the node and the group still have."""
        return usable(self.node_bytes, self.group_bytes)


def usable(node_bytes: int, group_bytes: int | None) -> int:
    """Returns the smaller of the two; a group that does not limit (None) allows anything."""
    return node_bytes if group_bytes is None else max(0, min(node_bytes, group_bytes))


def room_within(group: CgroupMemory | None) -> int | None:
    """Returns the least room over all levels of the group, which may be nested below vLLM's.

    memory.high counts as a limit. A level whose usage is unknown bounds with all of its limit.
    """
    return _core.find_limits(group, None).headroom_bytes


@contextlib.contextmanager
def cache_left_out(module: Any) -> Iterator[None]:
    """Inside, the group's usage that vLLM sees has no page cache in it.

    vLLM looks at the topmost group that the mount shows, and takes
    min(node, limit − usage) if that is smaller than the node.

    Args:
        module: ``vllm.utils.cpu_resource_utils``; one without the function is let be, so
            that its reading can only be lowered.
    """
    usage: Callable[[], int | None] | None = getattr(module, USAGE_FUNCTION, None)
    if usage is None:
        yield
        return

    def without_cache() -> int | None:
        found = usage()
        return None if found is None else max(0, found - _file_cache())

    setattr(module, USAGE_FUNCTION, without_cache)
    try:
        yield
    finally:
        setattr(module, USAGE_FUNCTION, usage)


def _file_cache() -> int:
    """Returns the page cache of the group whose usage vLLM reads; 0 if it is not told."""
    keys, folder = ("inactive_file", "active_file"), CGROUP_ROOT
    if not (folder / "memory.max").exists():  # v1, where plain keys leave out the children
        keys, folder = ("total_inactive_file", "total_active_file"), folder / "memory"
    try:
        text = (folder / "memory.stat").read_text()
    except OSError:
        return 0
    pairs = (line.split() for line in text.splitlines())
    return sum(int(pair[1]) for pair in pairs if pair[0] in keys)


def wait_until_it_fits(
    read: Callable[[], Available],
    wanted_bytes: int,
    *,
    wait_s: float,
    say: Callable[[Available], None],
    pause: Callable[[float], float] = wall_pause,
    poll_s: float = 0.1,
) -> tuple[Available, float]:
    """Returns the first reading that has room for ``wanted_bytes``, and the seconds waited.

    After ``wait_s`` it is the last reading, whatever it has.

    Args:
        read: reads anew.
        wanted_bytes: the budget to wait for.
        wait_s: seconds to wait at most; 0: one reading.
        say: told the first reading, before the first pause.
        pause: sleeps for the given seconds and returns how long it really took.
        poll_s: seconds between two readings.
    """
    found = read()
    waited_s = 0.0
    if found.usable_bytes < wanted_bytes and wait_s > 0:
        say(found)
    while found.usable_bytes < wanted_bytes and waited_s < wait_s:
        waited_s += pause(min(poll_s, wait_s - waited_s))
        found = read()
    return found, waited_s
