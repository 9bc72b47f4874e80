"""A CPU worker's budget, through vLLM's own arithmetic on a scripted node."""

from __future__ import annotations

import ctypes
import json
import logging
import math
import mmap
import sys
import tempfile
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cpu_host
import pytest

from memacct import BudgetError, _core
from memacct._units import GIB, MIB
from memacct.integrations.vllm import _cpu_available, _cpu_node
from memacct.integrations.vllm._config import read_config
from memacct.integrations.vllm._cpu_session import CPUSession

if TYPE_CHECKING:
    from pathlib import Path

# Far more than a process with all of these tests behind it holds.
REQUESTED_BYTES = 2 * GIB
MARGIN_BYTES = 16 * MIB
LARGE_BYTES = REQUESTED_BYTES + 88 * MIB
# The process goes on running between two readings of what it holds.
DRIFT_BYTES = 16 * MIB


def held_bytes() -> int:
    held = _core.snapshot("mappings", None).host.held_bytes
    assert held is not None
    return held


@pytest.fixture(autouse=True)
def node(monkeypatch: pytest.MonkeyPatch) -> cpu_host.Node:
    group = _core.read_cgroup()
    if group is not None and group.limit_bytes is not None and group.limit_bytes < 3 * GIB:
        pytest.skip("this control group is smaller than the scripted node")
    for name in ("vllm.v1.worker.cpu_worker", "vllm.utils.cpu_resource_utils"):
        monkeypatch.setitem(sys.modules, name, cpu_host)
    node = cpu_host.Node([LARGE_BYTES], rss_bytes=held_bytes() + 100 * MIB)
    monkeypatch.setattr(cpu_host, "node", node)
    return node


def session(requested_bytes: int = REQUESTED_BYTES, **keys: Any) -> CPUSession:
    given = {"profiler": "native", "margin": MARGIN_BYTES, **keys}
    worker = cpu_host.Worker(requested_bytes)
    made = CPUSession(worker, read_config({"memacct": given}, environ={}))
    made.before_init_device()
    made.after_init_device()
    return made


def budget(made: CPUSession) -> int:
    originals = cpu_host.psutil, cpu_host.get_memory_node_info, cpu_host.get_cgroup_memory_usage
    try:
        return int(made.worker.determine_available_memory())
    finally:
        assert originals == (
            cpu_host.psutil,
            cpu_host.get_memory_node_info,
            cpu_host.get_cgroup_memory_usage,
        )


def about(what: int) -> Any:
    return pytest.approx(what, abs=DRIFT_BYTES)


def test_held_memory_is_subtracted_and_both_numbers_are_told(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, node: cpu_host.Node
) -> None:
    caplog.set_level(logging.INFO, "vllm.memacct")
    assert budget(session(report_dir=str(tmp_path))) == about(
        REQUESTED_BYTES - held_bytes() - MARGIN_BYTES
    )
    assert "vLLM's own reading would have given" in caplog.text
    (path,) = tmp_path.glob("*.json")
    told = json.loads(path.read_text())
    assert told["stock_bytes"] == REQUESTED_BYTES - node.rss_bytes
    assert told["available_bytes"] == LARGE_BYTES
    assert not told["clamped"]
    assert sum(told["held_by_kind"].values()) == told["held_bytes"]
    assert "mappings" not in told["snapshot"]
    assert told["snapshot"]["host"]["tier"] == "mappings"


def test_locked_file_pages_are_held() -> None:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    size = ctypes.c_size_t(64 * MIB)
    with tempfile.TemporaryFile(dir=".") as file:
        file.truncate(64 * MIB)
        # Read-only, so that locking it brings in page cache and no copies.
        place = ctypes.c_void_p(
            libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_PRIVATE, file.fileno(), 0)
        )
        before = budget(session())
        if libc.mlock(place, size) != 0:
            pytest.skip("this process may not lock 64 MiB")
        locked = budget(session())
        assert libc.munmap(place, size) == 0
    assert locked == about(before - 64 * MIB)


def test_what_stock_would_not_have_started_with_is_said(
    caplog: pytest.LogCaptureFixture, tmp_path: Path, node: cpu_host.Node
) -> None:
    caplog.set_level(logging.INFO, "vllm.memacct")
    node.rss_bytes = REQUESTED_BYTES
    assert budget(session(report_dir=str(tmp_path))) == about(
        REQUESTED_BYTES - held_bytes() - MARGIN_BYTES
    )
    assert "vLLM's own reading would have ended the start" in caplog.text
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["stock_bytes"] is None


def test_stocks_own_available_decides_whether_stock_would_have_started(
    node: cpu_host.Node, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The cache is in the group's usage, so that the uncorrected reading has no room at all.
    node.limit_bytes, node.usage_bytes = LARGE_BYTES, LARGE_BYTES
    (tmp_path / "memory.max").touch()
    (tmp_path / "memory.stat").write_text(f"inactive_file {LARGE_BYTES}\n")
    monkeypatch.setattr(_cpu_available, "CGROUP_ROOT", tmp_path)
    made = session()
    assert budget(made) == about(REQUESTED_BYTES - held_bytes() - MARGIN_BYTES)
    assert made.report is not None
    assert made.report.stock_bytes is None
    assert made.report.available_bytes == LARGE_BYTES


def test_a_node_that_has_less_clamps(node: cpu_host.Node, caplog: pytest.LogCaptureFixture) -> None:
    node.available_bytes = [200 * MIB]
    assert budget(session()) == 200 * MIB - MARGIN_BYTES
    assert "KV cache clamped" in caplog.text


def test_waiting_reads_the_same_node_again(
    node: cpu_host.Node, caplog: pytest.LogCaptureFixture
) -> None:
    node.available_bytes = [200 * MIB] * 5 + [LARGE_BYTES]
    made = session(on_shortfall="wait", wait_s=60)
    assert budget(made) == about(REQUESTED_BYTES - held_bytes() - MARGIN_BYTES)
    assert made.report is not None
    assert made.report.waited_s > 0
    assert caplog.text.count("waiting for up to 60 s") == 1
    assert "clamped" not in caplog.text
    assert set(node.asked) == {1}


def test_waiting_in_vain_clamps(node: cpu_host.Node) -> None:
    node.available_bytes = [200 * MIB] * 3 + [210 * MIB]
    assert budget(session(on_shortfall="wait", wait_s=0.15)) == 210 * MIB - MARGIN_BYTES


def test_error_raises(node: cpu_host.Node) -> None:
    node.available_bytes = [200 * MIB]
    with pytest.raises(BudgetError, match="on_shortfall is 'error'"):
        budget(session(on_shortfall="error"))


def test_a_fault_leaves_stock(node: cpu_host.Node, caplog: pytest.LogCaptureFixture) -> None:
    made = session()
    made.worker.rank = "none"
    assert budget(made) == REQUESTED_BYTES - node.rss_bytes
    assert "From here on the profiling is vLLM's own" in caplog.text


def test_a_fault_is_raised_where_strict() -> None:
    made = session(strict=True)
    made.worker.rank = "none"
    with pytest.raises(ValueError, match="none"):
        budget(made)


class OldWorker:
    """The part of CPUWorker that decides the budget in 0.11.0 to 0.18.1."""

    def __init__(self, utilization: float) -> None:
        self.rank = 0
        self.local_omp_cpuid = "nobind"
        self.cache_config = SimpleNamespace(
            kv_cache_memory_bytes=None,
            cpu_kvcache_space_bytes=4 * GIB,
            gpu_memory_utilization=utilization,
        )
        self.device_config = SimpleNamespace(device_type="cpu")
        self.vllm_config = SimpleNamespace(additional_config=None)
        self.passes = 0
        self.model_runner = SimpleNamespace(warming_up_model=self._pass)

    def _pass(self) -> None:
        self.passes += 1

    def determine_available_memory(self) -> int:
        return int(self.cache_config.cpu_kvcache_space_bytes)


def old_session(worker: OldWorker, **keys: Any) -> CPUSession:
    given = {"profiler": "native", "margin": MARGIN_BYTES, **keys}
    made = CPUSession(worker, read_config({"memacct": given}, environ={}))
    made.before_init_device()
    made.after_init_device()
    return made


def share_of_this_machine() -> tuple[float, int]:
    """A utilization, and the bytes it stands for: twice what this process holds."""
    total = _cpu_node.node_memory(None)[0]
    limits = _core.snapshot("counters", None, limits=True).limits
    if limits is not None and limits.effective_limit_bytes is not None:
        total = min(total, limits.effective_limit_bytes)
    wanted = 2 * held_bytes() + 2 * MARGIN_BYTES
    return wanted / total, math.ceil(total * (wanted / total))


def test_an_old_vllms_fixed_number_gives_way_to_what_was_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    caplog.set_level(logging.INFO, "vllm.memacct")
    utilization, requested = share_of_this_machine()
    worker = OldWorker(utilization)
    made = old_session(worker, report_dir=str(tmp_path))
    budget_bytes = worker.determine_available_memory()
    assert made.report is not None
    assert made.report.requested_bytes == requested
    assert budget_bytes == requested - made.report.held_bytes - MARGIN_BYTES
    assert worker.passes == 1, "the first request's libraries and buffers are in"
    assert "This vLLM would have taken 4.00 GiB" in caplog.text
    (path,) = tmp_path.glob("*.json")
    told = json.loads(path.read_text())
    assert (told["stock_bytes"], told["final_bytes"]) == (4 * GIB, budget_bytes)


def test_the_users_own_space_wins_in_an_old_vllm_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "4")
    worker = OldWorker(0.5)
    old_session(worker)
    assert worker.determine_available_memory() == 4 * GIB
    assert worker.passes == 0


def test_an_old_vllms_budget_that_does_not_fit_is_clamped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    worker = OldWorker(100.0)  # of the machine
    made = old_session(worker)
    budget_bytes = worker.determine_available_memory()
    assert made.report is not None
    assert made.report.available_bytes is not None
    assert budget_bytes == made.report.available_bytes - MARGIN_BYTES


def test_an_old_vllm_with_no_room_is_left_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_CPU_KVCACHE_SPACE", raising=False)
    worker = OldWorker(1e-9)
    old_session(worker)
    assert worker.determine_available_memory() == 0


def test_the_node_is_that_of_the_first_cpu() -> None:
    assert _cpu_node.node_of("nobind") is None
    assert _cpu_node.node_of("all") is None
    if (_cpu_node.NODES / "node0").exists():
        assert _cpu_node.node_of("0,3-4") == 0
        total, available = _cpu_node.node_memory(0)
        assert 0 < available < total <= _cpu_node.node_memory(None)[0]
