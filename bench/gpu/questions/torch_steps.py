"""What torch takes of the device step by step, and whether its account and ours agree."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

from memacct import _core, snapshot

from .answer import Answer, change
from .nvml import Nvml

SIDE = 2048


def ask(short: bool) -> Answer:
    answer = Answer()
    if importlib.util.find_spec("torch") is None:
        answer.skip("torch's account", "torch is not installed")
        answer.text = "not asked: torch is not installed"
        return answer
    import torch

    if torch.version.cuda is None:
        answer.skip("torch's account", "this torch is built without CUDA")
        return answer
    answer.figures["torch"] = [torch.__version__, torch.version.cuda]
    from memacct.integrations.torch import read_allocators

    _core.set_allocator_reader(read_allocators)
    nvml = Nvml()
    _before_context(answer, nvml, torch)
    rows = _steps(nvml, torch)
    answer.figures["steps"] = rows
    _judge(answer, rows, torch)
    last = rows[-1]
    answer.text = (
        f"at the end torch's process holds {last['own']} B, {last['non_torch']} not torch's"
    )
    return answer


def _before_context(answer: Answer, nvml: Nvml, torch: Any) -> None:
    """What torch can be asked before it has a context."""
    free = nvml.free_bytes()
    torch.cuda.is_available()
    torch.cuda.device_count()
    taken = change(free, nvml.free_bytes())
    answer.check("is_available and device_count take 0 bytes", taken == 0, taken)
    torch.cuda.get_device_properties(0)
    answer.figures["get_device_properties_takes"] = change(free, nvml.free_bytes())
    account = snapshot().torch
    answer.check("no account is told before torch uses CUDA", not account, str(account))


def _steps(nvml: Nvml, torch: Any) -> list[dict[str, Any]]:
    held: dict[str, Any] = {}

    def first() -> None:
        held["a"] = torch.ones(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)

    def multiply() -> None:
        held["b"] = held["a"] @ held["a"]

    def capture() -> None:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            held["c"] = held["a"] @ held["a"]
        held["graph"] = graph

    def drop() -> None:
        held.clear()
        torch.cuda.empty_cache()

    steps: dict[str, Callable[[], None]] = {
        "context": torch.cuda.init,
        "first tensor (8 MiB)": first,
        "first product (cuBLAS)": multiply,
        "second product": multiply,
        "graph of a product": capture,
        "all dropped, cache emptied": drop,
    }
    return [_row(name, step, nvml, torch) for name, step in steps.items()]


def _row(name: str, step: Callable[[], None], nvml: Nvml, torch: Any) -> dict[str, Any]:
    step()
    if torch.cuda.is_initialized() and torch.cuda.memory_reserved():
        torch.cuda.synchronize()
        _core.identify(0)
    taken = snapshot(devices="all")
    gpu = next(each for each in taken.devices or () if each.index == 0)
    account = next((each for each in taken.torch or () if each.uuid == gpu.uuid), None)
    reserved = torch.cuda.memory_reserved() if torch.cuda.is_initialized() else 0
    return {
        "step": name,
        "own": gpu.own_bytes,
        "free": gpu.free_bytes,
        "torch_reserved": reserved,
        "torch_allocated": torch.cuda.memory_allocated() if reserved else 0,
        "account": None if account is None else account.to_dict(),
        "non_torch": change(gpu.own_bytes, reserved),
        "listed": nvml.processes().get(gpu.attribution.own_pid),
    }


def _judge(answer: Answer, rows: list[dict[str, Any]], torch: Any) -> None:
    for row in rows:
        account = row["account"]
        if account is None:
            continue
        found = [account["reserved_bytes"], account["allocated_bytes"]]
        answer.check(
            f"{row['step']}: memacct's account is torch's",
            found == [row["torch_reserved"], row["torch_allocated"]],
            found,
        )
    known = [row for row in rows if row["own"] is not None]
    low = [row["step"] for row in known if row["own"] < row["torch_reserved"]]
    answer.check("own is never less than torch has reserved", not low, low)
    free, total = torch.cuda.mem_get_info()
    reading = _core.read_device(0, with_cuda=True)
    found = [reading.cuda_free_bytes, reading.cuda_total_bytes]
    answer.check(
        "mem_get_info is our reading of CUDA",
        found == [free, total],
        [change(reading.cuda_free_bytes, free), total],
    )
    answer.figures["non_torch_by_step"] = {row["step"]: row["non_torch"] for row in rows}
