"""The memory node of a CPU worker of a vLLM that does not ask for it itself (before 0.20)."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct.integrations.vllm._cpu_available import Available, room_within

if TYPE_CHECKING:
    from collections.abc import Iterable

NODES = Path("/sys/devices/system/node")
MEMINFO = Path("/proc/meminfo")
# As vLLM counts it from 0.20.2 on: free, and what the kernel gives back when it is asked.
_AVAILABLE = ("MemFree", "Active(file)", "Inactive(file)", "SReclaimable")


def node_of(cpus: object) -> int | None:
    """Returns the node of the first of the CPUs that a worker is bound to; None: it is not bound.

    Args:
        cpus: vLLM's ``local_omp_cpuid``, such as "0-3,8", "all" or "nobind".
    """
    first = re.match(r"\d+", str(cpus))
    if first is None:
        return None
    folder = NODES.parent / "cpu" / f"cpu{first[0]}"
    found = [re.fullmatch(r"node(\d+)", path.name) for path in folder.glob("node*")]
    return next((int(match[1]) for match in found if match), None)


def node_memory(node: int | None) -> tuple[int, int]:
    """Returns a node's total and available memory; of the machine where ``node`` is None.

    Raises:
        OSError: the kernel does not tell.
        KeyError: what it tells lacks a line.
    """
    path = MEMINFO if node is None else NODES / f"node{node}" / "meminfo"
    if not path.exists():
        path = MEMINFO
    lines = (re.sub(r"^Node \d+ ", "", line) for line in path.read_text().splitlines())
    terms = _kib_terms(lines)
    return terms["MemTotal"], sum(terms.get(name, 0) for name in _AVAILABLE)


def _kib_terms(lines: Iterable[str]) -> dict[str, int]:
    found = (re.match(r"(\S+):\s+(\d+) kB", line) for line in lines)
    return {match[1]: int(match[2]) * 1024 for match in found if match}


def requested_bytes(worker: Any, node: int | None) -> int:
    """Returns what a newer vLLM's worker would ask for: its share of the node or group.

    ``gpu_memory_utilization`` x the node's memory, or x the control group's limit where that
    is less (as from 0.24.0 on).
    """
    total, _ = node_memory(node)
    limit = _core.snapshot("counters", None, limits=True).limits
    if limit is not None and limit.effective_limit_bytes is not None:
        total = min(total, limit.effective_limit_bytes)
    return math.ceil(total * float(worker.cache_config.gpu_memory_utilization))


def available_on(node: int | None) -> Available:
    """Returns what the node and the control group still have; stock never asks."""
    free = node_memory(node)[1]
    group = room_within(_core.read_cgroup())
    return Available(node_bytes=free, group_bytes=group, stock_bytes=free)
