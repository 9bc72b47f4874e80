"""What a shortfall is explained from: the table of one worker's device, and the terms of advice.

Loaded only when there is something to explain: most starts never do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from memacct import _core
from memacct._units import format_bytes
from memacct.accounting.advice import (
    CacheTerms,
    Neighbour,
    OtherDevice,
    Surroundings,
)
from memacct.accounting.budget import requested_bytes
from memacct.accounting.equation import EquationRow
from memacct.accounting.holders import EngineHolding, OtherProcess, holder_rows
from memacct.integrations.torch._sleeping import sleeping_pools
from memacct.integrations.vllm._processes import process_name
from memacct.report.text import render_equation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct._core import DeviceMemory
    from memacct.accounting.consumption import Reading
    from memacct.integrations.vllm._gpu_session import GPUSession
    from memacct.integrations.vllm._shortfall import Shortfall


class DeviceView:
    """One worker's device as it is now, with what is known of its start."""

    def __init__(self, session: GPUSession, shortfall: Shortfall) -> None:
        self.session = session
        self.shortfall = shortfall

    def table(self, engine: EngineHolding) -> tuple[str, tuple[EquationRow, ...]]:
        """Returns who holds what on the device, now: for people, and its rows."""
        free, total = torch.cuda.mem_get_info(self.session.device_ordinal)
        reading = self.session.read(free)
        device = reading.device
        rows: Sequence[EquationRow]
        if device is None:
            rows = _untold_rows(free, total, engine)
        else:
            total = device.total_bytes
            self.shortfall.movements.add(device)
            others = self._others(device)
            rows = holder_rows(
                device,
                engine,
                baseline=self.baseline_device,
                siblings=reading.siblings,
                others=others,
            )
        return render_equation(rows, total), tuple(rows)

    def holders_text(self) -> str:
        """Returns in a sentence which other processes hold how much; "" where nobody is told."""
        free = self.session.raw_free()
        found = self.neighbours(self.session.read(free))
        known = sorted(
            ((n.held_bytes, n) for n in found if n.held_bytes), key=lambda pair: -pair[0]
        )
        told = ", ".join(f"{neighbour} {format_bytes(held)}" for held, neighbour in known[:5])
        return f"Others hold: {told}." if told else ""

    @property
    def baseline_device(self) -> DeviceMemory | None:
        """The driver's reading at the baseline."""
        follower = self.session.follower
        return None if follower is None else follower.baseline.device

    def holding(
        self,
        *,
        planned: bool = False,
        examined: bool = True,
        kv_cache_bytes: int = 0,
        requested_bytes: int = 0,
    ) -> EngineHolding:
        """Returns what this engine holds.

        Args:
            planned: and what its steps and graphs will take.
            examined: and what of torch's cache is fragmented, which takes up to some tenths of
                a second.
            kv_cache_bytes: the KV cache, still to be taken.
            requested_bytes: all of what was asked for, still to be taken.
        """
        ordinal = self.session.device_ordinal
        runner = getattr(self.session.worker, "model_runner", None)
        measured = planned and hasattr(self.session.worker, "peak_activation_memory")
        return EngineHolding(
            weights_bytes=int(getattr(runner, "model_memory_usage", 0)),
            allocated_bytes=torch.cuda.memory_allocated(ordinal),
            reserved_bytes=torch.cuda.memory_reserved(ordinal),
            pinned_bytes=_pinned_bytes(ordinal) if examined else None,
            asleep_bytes=_asleep_bytes(ordinal),
            activations_peak_bytes=self.session.activations_peak_bytes if measured else 0,
            graphs_bytes=self.session.graphs_bytes if measured else 0,
            kv_cache_bytes=kv_cache_bytes,
            requested_bytes=requested_bytes,
        )

    def surroundings(self, free_bytes: int) -> Surroundings:
        """Returns what is around the engine; ``free_bytes``: what a start finds free."""
        free, total = torch.cuda.mem_get_info(self.session.device_ordinal)
        reading = self.session.read(free)
        device = reading.device
        baseline = self.baseline_device or device
        utilization = self.shortfall.asked_utilization
        if utilization is None:
            utilization = float(self.session.worker.cache_config.gpu_memory_utilization)
        return Surroundings(
            total_bytes=int(total),
            free_bytes=free_bytes,
            utilization=utilization,
            context_bytes=None if baseline is None else baseline.own_bytes,
            neighbours=self.neighbours(reading),
            others=self._other_devices(device),
        )

    def cache_terms(
        self, needed_bytes: int, model_len: int, fitting_model_len: int
    ) -> CacheTerms | None:
        """Returns what decides whether the KV cache fits; None before it was measured."""
        if self.shortfall.wanted_bytes is None or self.shortfall.available_bytes is None:
            return None
        worker = self.session.worker
        _, total = torch.cuda.mem_get_info(self.session.device_ordinal)
        utilization = float(worker.cache_config.gpu_memory_utilization)
        scheduler = worker.vllm_config.scheduler_config
        return CacheTerms(
            consumed_bytes=requested_bytes(int(total), utilization) - self.shortfall.wanted_bytes,
            needed_bytes=needed_bytes,
            available_bytes=self.shortfall.available_bytes,
            activations_peak_bytes=self.session.activations_peak_bytes,
            batched_tokens_count=getattr(scheduler, "max_num_batched_tokens", None),
            fewest_tokens_count=_fewest_tokens(scheduler, model_len),
            model_len=model_len,
            fitting_model_len=fitting_model_len,
        )

    def free_at_a_start(self) -> int:
        """Returns what an engine that starts now would find free."""
        follower = self.session.follower
        free = self.session.raw_free()
        if follower is None:
            return free
        return int(follower.baseline.free_bytes) - self.session.grown_bytes(free)

    def _others(self, device: DeviceMemory) -> dict[int, OtherProcess]:
        baseline = self.baseline_device
        listed = [*device.processes, *([] if baseline is None else baseline.processes)]
        return {
            process.pid: OtherProcess(
                name=process_name(process.pid, device),
                moved=self.shortfall.movements.last_move(process.pid),
            )
            for process in listed
            if process.owner == "foreign"
        }

    def neighbours(self, reading: Reading) -> tuple[Neighbour, ...]:
        """Returns the processes on the device that are not the engine's."""
        device = reading.device
        if device is None:
            return ()
        ours = {sibling.pid for sibling in reading.siblings}
        baseline = self.baseline_device
        then = {p.pid: p.process_used_bytes for p in baseline.processes} if baseline else {}
        found = []
        for process in device.processes:
            if process.owner != "foreign" or process.pid in ours:
                continue
            now, before = process.process_used_bytes, then.get(process.pid, 0)
            found.append(
                Neighbour(
                    pid=process.pid,
                    held_bytes=now,
                    grown_bytes=None if now is None or before is None else now - before,
                    name=process_name(process.pid, device),
                )
            )
        return tuple(found)

    def _other_devices(self, own: DeviceMemory | None) -> tuple[OtherDevice, ...]:
        if own is None or not _uses_one_device(self.session.worker):
            return ()
        return tuple(
            OtherDevice(
                index=other.index,
                uuid=other.uuid,
                total_bytes=other.total_bytes,
                free_bytes=other.free_bytes,
            )
            for other in _core.read_devices("all")
            if other.uuid != own.uuid and other.parent_uuid == own.parent_uuid
        )


def _pinned_bytes(ordinal: int) -> int | None:
    from memacct.integrations.torch import fragmentation

    try:
        found = fragmentation(ordinal)
    except Exception:  # noqa: BLE001 (its text is one clause of the table)
        return None
    if found.pinned_bytes is None or found.private_bytes is None:
        return None
    return found.pinned_bytes + found.private_bytes


def _asleep_bytes(ordinal: int) -> int:
    pools = sleeping_pools(ordinal)
    return 0 if pools is None else pools.unmapped_bytes or 0


def _uses_one_device(worker: Any) -> bool:
    parallel = worker.vllm_config.parallel_config
    sizes = ("world_size", "data_parallel_size")
    return all(getattr(parallel, name, 1) == 1 for name in sizes)


def _fewest_tokens(scheduler: Any, model_len: int) -> int:
    # vLLM refuses fewer tokens than sequences, and, without chunking, than the longest prompt.
    fewest = int(getattr(scheduler, "max_num_seqs", 1))
    chunks = getattr(scheduler, "enable_chunked_prefill", True)
    return fewest if chunks else max(fewest, model_len)


def _untold_rows(free: int, total: int, engine: EngineHolding) -> list[EquationRow]:
    """The table where the driver's account cannot be read: CUDA's numbers and torch's."""
    reserved, allocated = engine.reserved_bytes or 0, engine.allocated_bytes or 0
    rest, planned = total - free - reserved, engine.planned_bytes
    return [
        _row("torch allocated", allocated, allocated, "this process"),
        _row("torch cached", reserved - allocated, reserved - allocated, "this process"),
        _row("all else", rest, rest, "others, and what of this process torch does not know"),
        _row("still to come", 0, planned, "this process"),
        _row("free", free, free - planned, "cudaMemGetInfo"),
    ]


def _row(name: str, now: int, planned: int, source: str) -> EquationRow:
    return EquationRow(name=name, now_bytes=now, planned_bytes=planned, source=source)
