"""What memacct meets of vLLM on a CPU: its worker's arithmetic (0.32.0), with a scripted node.

Stands for both ``vllm.v1.worker.cpu_worker`` and ``vllm.utils.cpu_resource_utils``.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import NamedTuple


class _MemoryInfo(NamedTuple):
    rss: int


@dataclass
class Node:
    """What the machine answers.

    Attributes:
        available_bytes: one reading after the other; the last one stays.
        limit_bytes: of the control group at the top of the mount; None: unlimited.
    """

    available_bytes: list[int]
    rss_bytes: int
    limit_bytes: int | None = None
    usage_bytes: int = 0
    asked: list[int] = field(default_factory=list)


node = Node([0], 0)


class _Process:
    def __init__(self, pid: int | None = None) -> None:
        self.pid = os.getpid() if pid is None else pid

    def memory_info(self) -> _MemoryInfo:
        return _MemoryInfo(rss=node.rss_bytes)


psutil = SimpleNamespace(Process=_Process)


def get_cgroup_memory_usage() -> int:
    return node.usage_bytes


def get_memory_node_info(node_id: int = 0) -> SimpleNamespace:
    node.asked.append(node_id)
    free = node.available_bytes
    available = free.pop(0) if len(free) > 1 else free[0]
    if node.limit_bytes is not None:
        available = max(0, min(available, node.limit_bytes - get_cgroup_memory_usage()))
    return SimpleNamespace(available_memory=available)


class Worker:
    """The part of vLLM's CPUWorker that decides the budget."""

    def __init__(self, requested_bytes: int, additional_config: object = None) -> None:
        self.requested_cpu_memory = requested_bytes
        self.rank = 0
        self.cache_config = SimpleNamespace(kv_cache_memory_bytes=None)
        self.device_config = SimpleNamespace(device_type="cpu")
        self.vllm_config = SimpleNamespace(additional_config=additional_config)

    def determine_available_memory(self) -> int:
        available = get_memory_node_info(1).available_memory
        consumed = psutil.Process(os.getpid()).memory_info().rss
        budget = int(self.requested_cpu_memory - consumed)
        if budget <= 0 or budget > available:
            raise ValueError(f"{available} available is less than {budget} requested for kv")
        return budget
