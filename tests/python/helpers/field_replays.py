"""Failures that people reported, replayed on the simulated GPU, by a naive reading and by memacct.

Each replay is a function that returns one `Row`, of the figures that it measured. The reports'
numbers are taken over to the MiB, in the pages of 2 MiB that device memory comes in.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from device_process import DeviceProcess
from scenario_answers_shared import MANAGED

from memacct._trace_events import residue_trend
from memacct._units import GIB, MIB
from memacct.sim import Faults, SimulatedGpu
from memacct.sim._scenarios_instances import GPU_UUID, SECOND_UUID

if TYPE_CHECKING:
    from collections.abc import Callable

CONTEXT_BYTES = 400 * MIB  # each process's: all of them are there before anything is measured

# A pass over memory that the process allocates itself, with an allocator whose account is data.
ENGINE = """
import dataclasses
from memacct.profile import profile_pass

class Account:
    reserved = allocated = peak = 0
    def reserved_bytes(self): return self.reserved
    def allocated_bytes(self): return self.allocated
    def peak_allocated_bytes(self): return self.peak
    def reset_peak(self): pass

account = Account()

def begin(**options):
    global profiling
    profiling = profile_pass(0, allocator=account, **options)
    profiling.__enter__()

def weights(size):  # what the allocator takes
    allocate(size)
    account.reserved = account.allocated = account.peak = account.reserved + size

def end():
    profiling.__exit__(None, None, None)
    found = profiling.result
    return {
        "consumed": found.consumption.consumed_bytes,
        "source": found.consumption.source,
        "bounds": found.consumption.bounds_bytes,
        "reason": found.consumption.reason,
        "budget": found.budget.final_bytes,
        "foreign": found.foreign_delta_bytes,
        "free": [mark.reading.free_bytes for mark in found.marks],
        "rung": found.marks[-1].reading.device.attribution.source,
    }
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table in docs/field-failures.md."""

    naive: str
    memacct: str
    source: str
    bounds: str

    def cells(self) -> str:
        """The line's cells after its name, as the table has them."""
        return " | ".join(getattr(self, field.name) for field in fields(self))


def gib(size_bytes: int | None) -> str:
    """Two decimals of GiB with a real minus, or "unknown"."""
    return "unknown" if size_bytes is None else f"{size_bytes / GIB:.2f} GiB".replace("-", "−")


def between(bounds: Any) -> str:
    """Bounds as the table has them."""
    low, high = bounds
    if low is not None and low == high:
        return "exact"
    return f"{'?' if low is None else gib(low)} to {'?' if high is None else gib(high)}"


def engine(gpu: SimulatedGpu, faults: Faults | None = None) -> DeviceProcess:
    """A process with a context that can run a profiling pass."""
    process = DeviceProcess(gpu, faults=faults)
    process.run(ENGINE + "\ncontext()")
    return process


def stock_budget(found: dict[str, Any], requested_bytes: int, *, peak_bytes: int = 0) -> int:
    """What is left by how the whole device's free memory changed."""
    return requested_bytes - (found["free"][0] - found["free"][-1]) - peak_bytes


# ---------------------------------------------------------------- starts beside others


def two_starters() -> tuple[Row, Row]:
    """Two engines profile at once on 32 GB: each charges itself with what the other loads."""
    total, own = 32110 * MIB, {"first": 6404 * MIB, "second": 3534 * MIB}
    requested = {"first": int(0.35 * total), "second": int(0.20 * total)}
    with (
        SimulatedGpu(total_bytes=total + 2 * CONTEXT_BYTES) as gpu,
        engine(gpu) as first,
        engine(gpu) as second,
    ):
        first.run(f"begin(budget_bytes={requested['first']}); weights({228 * MIB})")
        second.run(f"begin(budget_bytes={requested['second']}); weights({2948 * MIB})")
        first.run(f"weights({own['first'] - 228 * MIB})")
        found = {"first": first.run("result = end()")}
        second.run(f"weights({own['second'] - 2948 * MIB})")
        found["second"] = second.run("result = end()")
    return tuple(  # type: ignore[return-value]
        Row(
            naive=f"KV cache {gib(stock_budget(one, requested[name]))}",
            memacct=f"KV cache {gib(one['budget'])}",
            source=f"`{one['source']}`, `{one['rung']}`",
            bounds=between(one["bounds"]),
        )
        for name, one in found.items()
    )


def neighbour_releases() -> Row:
    """Free memory grows while an engine profiles: stock vLLM ends with an AssertionError."""
    own, released = 15 * GIB, 15 * GIB + 7404 * MIB  # free 82.94 -> 90.17 GiB
    with (
        SimulatedGpu(total_bytes=97252 * MIB + 2 * CONTEXT_BYTES) as gpu,
        gpu.tenant() as neighbour,
        engine(gpu) as process,
    ):
        neighbour.allocate(released)
        process.run(f"begin(budget_bytes={40 * GIB}); weights({own})")
        neighbour.free()
        found = process.run("result = end()")
    assert found["free"][-1] > found["free"][0], "stock vLLM asserts the opposite"
    return Row(
        naive=f"free grew by {gib(found['free'][-1] - found['free'][0])}: AssertionError",
        memacct=f"own {gib(found['consumed'])}, released by others {gib(-found['foreign'])}",
        source=f"`{found['source']}`, `{found['rung']}`",
        bounds=between(found["bounds"]),
    )


def sleeper_wakes() -> Row:
    """A sleeping engine takes memory back while a second one starts, and then sleeps again."""
    total, requested, own = 81080 * MIB, 66890 * MIB, 1076 * MIB
    with (
        SimulatedGpu(total_bytes=total + 2 * CONTEXT_BYTES) as gpu,
        gpu.tenant(1834 * MIB) as sleeper,
        engine(gpu) as process,
    ):
        process.run(
            f"begin(budget_bytes={requested}, on_shortfall='wait', wait_s=60.0); weights({own})"
        )
        sleeper.allocate(31 * GIB)
        # The queries of baseline and end are made by then: the pass waits.
        sleeper.when(nvml_process_queries=40, pid=process.pid, then=f"free:{31 * GIB}")
        found = process.run("result = end()")
    return Row(
        naive=f"KV cache {gib(stock_budget(found, requested))}",
        memacct=f"KV cache {gib(found['budget'])}, after waiting for the sleeper",
        source=f"`{found['source']}`, `{found['rung']}`",
        bounds=between(found["bounds"]),
    )


def late_helper() -> Row:
    """An engine's own helper process takes a context after the engine's first snapshot."""
    requested, own, helper = 20 * GIB, 9 * GIB, 682 * MIB
    with SimulatedGpu(total_bytes=32110 * MIB) as gpu, engine(gpu) as process:
        process.run(f"begin(budget_bytes={requested}); weights({own})")
        alone = process.run(f"child = in_tree({helper - CONTEXT_BYTES}); result = reading()")
        found = process.run("result = end(); child.end()")
    naive = requested - (
        alone["own_bytes"] - CONTEXT_BYTES
    )  # since the start, getpid()'s record alone
    return Row(
        naive=f"KV cache {gib(naive)}: the own record leaves the helper out",
        memacct=f"KV cache {gib(found['budget'])}",
        source=f"`{found['source']}`, `{found['rung']}`",
        bounds=between(found["bounds"]),
    )


def third_engine() -> Row:
    """The third engine within one process: the first two are in its record already."""
    total, free = 81920 * MIB, 59029782528 // (2 * MIB) * (2 * MIB)
    requested, own = 24 * GIB, 12 * GIB
    with SimulatedGpu(total_bytes=total) as gpu, engine(gpu) as process:
        process.run(f"allocate({total - free - CONTEXT_BYTES})")
        process.run(f"begin(budget_bytes={requested}); weights({own})")
        held = process.read()["own_bytes"]
        found = process.run("result = end()")
    return Row(
        naive=f"KV cache {gib(requested - held)}: the record counts all three",
        memacct=f"KV cache {gib(found['budget'])}",
        source=f"`{found['source']}`, `{found['rung']}`",
        bounds=between(found["bounds"]),
    )


# ---------------------------------------------------------------- whose record


def missed_lookup() -> tuple[Row, Row]:
    """In a container the list has other numbers: a miss reads 0, and 30 GiB look free."""
    requested, loaded, peak, rest = 30 * GIB, 10 * GIB, 2 * GIB, GIB
    rows = []
    for identify in (False, True):
        with (
            SimulatedGpu(total_bytes="80GiB") as gpu,
            gpu.tenant("7GiB") as neighbour,
            engine(gpu, Faults(pids="host")) as process,
        ):
            process.run(f"allocate({2 * MIB})")
            process.run(f"begin(budget_bytes={requested}, identify={identify})")
            process.run(f"weights({loaded}); allocate({rest}); account.peak += {peak}")
            neighbour.free("5GiB")
            listed = {row["pid"]: row["process_used_bytes"] for row in process.read()["processes"]}
            found = process.run("result = end()")
        naive = listed.get(process.pid, 0)
        rows.append(
            Row(
                naive=f"own {gib(naive)}, KV cache {gib(requested - naive)}",
                memacct=f"KV cache {gib(found['budget'])}",
                source=f"`{found['source']}`, `{found['rung']}`",
                bounds=between(found["bounds"]),
            )
        )
    return rows[0], rows[1]


def host_numbers() -> tuple[Row, Row]:
    """The list has the host's numbers: 59.97 GiB are ours, of which torch knows 59.16."""
    held, reserved = 61410 * MIB, 60580 * MIB
    with (
        SimulatedGpu(total_bytes="80GiB") as gpu,
        gpu.tenant("2GiB"),
        DeviceProcess(gpu, faults=Faults(pids="host")) as process,
    ):
        process.run(f"context(); allocate({held - CONTEXT_BYTES})")
        passive = process.read(allocator_reserved_bytes=reserved)
        active = process.run("_core.identify(0); result = reading(0)")
    listed = {row["pid"]: row["process_used_bytes"] for row in passive["processes"]}
    naive = f"own {gib(listed.get(process.pid, 0))}"
    return _own_row(naive, passive), _own_row(naive, active)


def zero_bytes() -> Row:
    """Drivers 535.113 to 560 in a container: our pid is listed, with 0 bytes."""
    with (
        SimulatedGpu(total_bytes="32GiB") as gpu,
        DeviceProcess(gpu, faults=Faults(pids="hidden", pid_bytes={"self": 0})) as process,
    ):
        process.run(f"context(); allocate({5 * GIB - CONTEXT_BYTES})")
        reading = process.read(allocator_reserved_bytes=4 * GIB)
    listed = {row["pid"]: row["process_used_bytes"] for row in reading["processes"]}
    return _own_row(f"own {gib(listed[process.pid])}", reading)


def _own_row(naive: str, reading: dict[str, Any]) -> Row:
    attribution = reading["attribution"]
    return Row(
        naive=naive,
        memacct=f"own {gib(reading['own_bytes'])}",
        source=f"`{attribution['source']}`",
        bounds=between(attribution["own_bounds_bytes"]),
    )


# ---------------------------------------------------------------- what the list is made of

_NAIVE_RECORDS = """
class Record(ctypes.Structure):  # of 24 bytes, as the header says
    _fields_ = [("pid", ctypes.c_uint), ("bytes", ctypes.c_ulonglong),
                ("gpu", ctypes.c_uint), ("compute", ctypes.c_uint)]
nvml = ctypes.CDLL("libnvidia-ml.so.1")
nvml.nvmlInit_v2()
device, count = ctypes.c_void_p(), ctypes.c_uint(16)
nvml.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
records = (Record * 32)()
nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, ctypes.byref(count), records)
result = [record.pid for record in records[: count.value]]
"""


def wider_records() -> Row:
    """Driver 535.54.03 writes records of 32 bytes where the header says 24."""
    faults = Faults(record_bytes={3: 32}, missing=["nvmlDeviceGetComputeRunningProcesses_v2"])
    with (
        SimulatedGpu(total_bytes="32GiB") as gpu,
        gpu.tenant("1GiB"),
        gpu.tenant("2GiB"),
        DeviceProcess(gpu, faults=faults) as process,
    ):
        process.run(f"context(); allocate({3 * GIB - CONTEXT_BYTES})")
        naive = process.run(_NAIVE_RECORDS)
        reading = process.read()
    real = {row["pid"] for row in reading["processes"]}
    right = sum(pid in real and pid != 0 for pid in naive)
    return Row(
        naive=f"{right} of {len(naive)} pids right",
        memacct=f"{len(real)} of {len(naive)} pids right, own {gib(reading['own_bytes'])}",
        source=f"`{reading['attribution']['source']}`",
        bounds=between(reading["attribution"]["own_bounds_bytes"]),
    )


def lying_allocator() -> Row:
    """Sleeping pools: torch counts 198.68 GB on an H200, of which little is mapped."""
    claimed, mapped = 198_680_000_000, 2 * GIB
    with (
        SimulatedGpu(total_bytes=140_000_000_000) as gpu,
        DeviceProcess(gpu) as process,
    ):
        process.run(f"context(); allocate({mapped})")
        reading = process.read(allocator_reserved_bytes=claimed)
    naive = reading["device_used_bytes"] - claimed
    row = _own_row(f"torch {gib(claimed)}, non-torch {gib(naive)}", reading)
    assert reading["non_torch_bytes"] == reading["own_bytes"] - claimed
    return replace(row, memacct=f"{row.memacct}, inconsistent: {reading['allocator_inconsistent']}")


# ---------------------------------------------------------------- whose memory at all


def managed_memory() -> Row:
    """60 GB of managed memory, of which the driver lists 5 with its process."""
    with SimulatedGpu.scenario("managed-memory") as gpu, DeviceProcess(gpu) as process:
        process.run(MANAGED)
        reading = process.read()
    others = reading["device_used_bytes"] - reading["own_bytes"]
    return Row(
        naive=f"others hold {gib(others)}",
        memacct=f"others hold {gib(reading['foreign_bytes'])}, "
        f"{gib(reading['unattributed_bytes'])} is nobody's who is listed",
        source=f"`{reading['attribution']['source']}`",
        bounds=between(reading["attribution"]["own_bounds_bytes"]),
    )


def squeezed_host() -> Row:
    """GB10: the kernel promises 22.5 GiB, of which 2.5 are really free."""
    with SimulatedGpu.scenario("gb10-squeezed") as gpu, DeviceProcess(gpu) as process:
        process.run("context()")
        reading = process.read()
    return _unified_row(gib(reading["unified"]["host_available_bytes"]), reading)


def cached_host() -> Row:
    """GB10: 2.77 GiB are free to CUDA, 52 to the kernel, at the same instant."""
    with SimulatedGpu.scenario("gb10-page-cache") as gpu, DeviceProcess(gpu) as process:
        process.run(f"context(); allocate({64 * MIB})")
        reading = process.read()
    return _unified_row(gib(reading["unified"]["host_available_bytes"]), reading)


def _unified_row(naive: str, reading: dict[str, Any]) -> Row:
    cache = reading["unified"]["page_cache_bytes"]
    return Row(
        naive=f"free {naive} (MemAvailable)",
        memacct=f"free {gib(reading['free_bytes'])}, page cache {gib(cache)}, "
        f"own {gib(reading['own_bytes'])}",
        source=f"`{reading['unified']['free_source']}`, `{reading['attribution']['source']}`",
        bounds=between(reading["attribution"]["own_bounds_bytes"]),
    )


def growing_residue() -> Row:
    """What an engine holds asleep grows from 412 to 5184 MiB in a day."""
    hour_ns, grown = 3600 * 10**9, []
    with SimulatedGpu(total_bytes="24GiB") as gpu, DeviceProcess(gpu) as process:
        process.run(f"context(); allocate({12 * MIB})")
        first = process.read()
        for hour in range(25):
            reading = process.read()
            grown.append((hour * hour_ns, reading["own_bytes"]))
            process.run(f"allocate({(198 if hour < 23 else 218) * MIB})")
    trend = residue_trend(grown, reserved=(), windows_count=24, alarm_bytes_per_hour=64 * MIB)
    slope = trend.slope_bytes_per_hour or 0
    fallen = first["free_bytes"] - reading["free_bytes"]
    return Row(
        naive=f"the device's free memory fell by {gib(fallen)}",
        memacct=f"own {gib(grown[0][1])} to {gib(grown[-1][1])}, {gib(int(slope))} an hour"
        + (": alarm" if trend.alarm else ""),
        source=f"`{reading['attribution']['source']}`",
        bounds=between(reading["attribution"]["own_bounds_bytes"]),
    )


def mig_instance() -> Row:
    """A program on a MIG instance of 16 GiB, of a GPU of 141."""
    with (
        SimulatedGpu.scenario("mig") as gpu,
        DeviceProcess(gpu, env={"CUDA_VISIBLE_DEVICES": SECOND_UUID}) as process,
    ):
        process.run("context()")
        reading = process.read()
        whole = process.read(GPU_UUID)
    return Row(
        naive=f"total {gib(whole['total_bytes'])}: its GPU's",
        memacct=f"total {gib(reading['total_bytes'])}, own {gib(reading['own_bytes'])}",
        source=f"`{reading['attribution']['source']}`",
        bounds=between(reading["attribution"]["own_bounds_bytes"]),
    )


REPLAYS: dict[str, Callable[[], Row | tuple[Row, ...]]] = {
    "two starters": two_starters,
    "neighbour releases": neighbour_releases,
    "sleeper wakes": sleeper_wakes,
    "missed look-up": missed_lookup,
    "host numbers": host_numbers,
    "zero bytes": zero_bytes,
    "wider records": wider_records,
    "late helper": late_helper,
    "third engine": third_engine,
    "managed memory": managed_memory,
    "squeezed host": squeezed_host,
    "cached host": cached_host,
    "growing residue": growing_residue,
    "MIG instance": mig_instance,
    "lying allocator": lying_allocator,
}

# Whose host is a given one, mounted over the real one's files.
LAYS_OVER_PROC = ("squeezed host", "cached host")
