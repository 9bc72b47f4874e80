"""What is read of one GPU worker: the engine's own terms, PyTorch's counters, the true device.

Everything that an engine's version may lack is asked for by name, and left out where it is not.
"""

from __future__ import annotations

import bisect
import functools
import math
from typing import Any

from memacct_dryrun_files import LeftToTheLog, Record, machine_status

# The worker's own terms, by the names that vLLM has for them.
TERMS = {
    "requested_bytes": "requested_memory",
    "graphs_estimated_bytes": "cudagraph_memory_estimate",
}


class Watched:
    """One worker, its runner and its file."""

    def __init__(self, worker: Any, record: Record) -> None:
        self.worker, self.record = worker, record
        self.out_of_memory: dict[str, int] | None = None
        self.profiling: Any = None

    def read(self) -> dict[str, Any]:
        """PyTorch's counters, the machine's true state."""
        import torch

        stats = torch.cuda.memory_stats(self.worker.device)
        return {
            "allocated_bytes": stats.get("allocated_bytes.all.current", 0),
            "allocated_peak_bytes": stats.get("allocated_bytes.all.peak", 0),
            "reserved_bytes": stats.get("reserved_bytes.all.current", 0),
            "reserved_peak_bytes": stats.get("reserved_bytes.all.peak", 0),
            "machine": machine_status(),
        }

    def moment(self, name: str, **more: Any) -> None:
        """Reads and writes."""
        self.record.moment(name, **self.read(), **more)

    def pages(self) -> dict[str, int]:
        """Pages of the host behind simulated device memory: no real engine has them."""
        import torch

        found = {}
        with LeftToTheLog():
            segments = [(s["address"], s["total_size"]) for s in torch.cuda.memory_snapshot()]
            found["device_pages_bytes"] = resident_bytes(segments)
        return found

    def terms(self) -> dict[str, Any]:
        """The engine's own numbers, as far as it has come."""
        found: dict[str, Any] = {}
        for name, attribute in TERMS.items():
            value = getattr(self.worker, attribute, None)
            if value is not None:
                found[name] = int(value)
        runner = getattr(self.worker, "model_runner", None)
        weights = getattr(runner, "model_memory_usage", None)
        if weights:
            found["weights_bytes"] = int(weights)
        if getattr(self.worker, "init_snapshot", None) is not None:
            found["start"] = start = numbers(self.worker.init_snapshot)
            if "requested_bytes" not in found and start.get("total_memory"):
                # The engine ended before it kept the number; this is how it reckons it.
                asked = start["total_memory"] * self.record.facts["utilization"]
                found["requested_bytes"] = math.ceil(asked)
        if self.profiling is not None:
            found["profiling"] = numbers(self.profiling)
        return found

    def observe_out_of_memory(self) -> None:
        """Notes how much was asked for, and how much was free, when PyTorch gives up."""
        import torch

        attach = getattr(torch._C, "_cuda_attach_out_of_memory_observer", None)  # noqa: SLF001
        if attach is None:
            return

        def observe(device: int, asked: int, _limit: int, free: int) -> None:
            self.out_of_memory = {"device": device, "asked_bytes": asked, "free_bytes": free}

        attach(observe)

    def fail(self, where: str, error: BaseException) -> None:
        """Writes what ended the start, with the numbers of that moment."""
        facts = {"out_of_memory": self.out_of_memory} if self.out_of_memory else {}
        with LeftToTheLog():
            self.record.tell(**self.terms())
        self.record.fail(where, error, **facts)

    def cache_bytes(self) -> int:
        """The KV cache: bytes of the storages that were allocated for it."""
        runner = self.worker.model_runner
        storages = {}
        for tensor in tensors_of(getattr(runner, "kv_caches", [])):
            storage = tensor.untyped_storage()
            if tensor.is_cuda:
                storages[storage.data_ptr()] = storage.nbytes()
        return sum(storages.values())

    def pools(self) -> dict[str, int] | None:
        """What is in PyTorch's private pools, which CUDA graphs keep for themselves."""
        import torch

        found: dict[str, int] = {}
        with LeftToTheLog():
            segments = [
                segment
                for segment in torch.cuda.memory_snapshot()
                if tuple(segment.get("segment_pool_id", (0, 0))) != (0, 0)
                and segment["device"] == self.worker.device.index
            ]
            found["reserved_bytes"] = sum(segment["total_size"] for segment in segments)
            found["allocated_bytes"] = sum(segment["allocated_size"] for segment in segments)
        return found or None

    def compile_s(self) -> float | None:
        """What torch.compile took of the passes so far; None where nothing is compiled."""
        config = self.worker.vllm_config.compilation_config
        return getattr(config, "compilation_time", None) or None

    def settings(self) -> dict[str, Any]:
        """What only the worker knows of its configuration."""
        runner = self.worker.model_runner
        found: dict[str, Any] = {
            "model_runner": "V2" if type(runner).__module__.endswith("gpu.model_runner") else "V1"
        }
        with LeftToTheLog():
            layers = self.worker.vllm_config.compilation_config.static_forward_context.values()
            names = [
                layer.get_attn_backend().get_name()
                for layer in layers
                if hasattr(layer, "get_attn_backend")
            ]
            if names:
                found["attention_backend"] = ", ".join(dict.fromkeys(names))
        return found


def resident_bytes(ranges: list[tuple[int, int]]) -> int:
    """How much of these ranges (address, size) is resident, by the kernel's list of mappings."""
    begins = sorted(ranges)
    found, resident, at = 0, 0, (0, 0)
    with open("/proc/self/smaps", encoding="ascii", errors="replace") as file:  # noqa: PTH123
        for line in file:
            name = line.split(" ", 1)[0]
            if name == "Rss:":
                resident = int(line.split()[1]) * 1024
                if resident:
                    found += min(resident, overlap_bytes(begins, *at))
            elif not name.endswith(":"):
                low, _, high = name.partition("-")
                at = int(low, 16), int(high, 16)
    return found


def overlap_bytes(ranges: list[tuple[int, int]], low: int, high: int) -> int:
    """How much of low..high lies in the sorted ranges, which do not overlap."""
    first = max(bisect.bisect_right(ranges, (low, 0)) - 1, 0)
    total = 0
    for address, size in ranges[first:]:
        if address >= high:
            break
        total += max(min(address + size, high) - max(address, low), 0)
    return total


def numbers(value: Any) -> dict[str, Any]:
    """The plain numbers among an object's attributes."""
    return {
        key: each
        for key, each in vars(value or object).items()
        if isinstance(each, (int, float)) and not key.startswith("_")
    }


def tensors_of(value: Any) -> list[Any]:
    """Every tensor in nested lists and dicts: a KV cache may be several tensors a layer."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_of(item)]
    return [value] if hasattr(value, "untyped_storage") else []


def wrap(owner: Any, name: str, around: Any) -> None:
    """Replaces `owner.name` by ``around(original, *args, **kwargs)``; once, and only if there."""
    original = getattr(owner, name, None)
    if original is None or getattr(original, "memacct_dryrun", False):
        return

    @functools.wraps(original)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return around(original, *args, **kwargs)

    wrapper.memacct_dryrun = True  # type: ignore[attr-defined]
    setattr(owner, name, wrapper)
