"""Reports of engines' processes as the plugin writes them, made for tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from memacct._units import GIB

if TYPE_CHECKING:
    from pathlib import Path


def head(kind: str, pid: int, **keys: Any) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "kind": kind,
        "memacct_version": "0.1.0",
        "vllm_version": "0.33.0",
        "instance_id": "1795310242947245416",
        "data_parallel_rank": 0,
        "profiler": "native",
        "pid": pid,
        "ppid": 100,
        "hostname": "node-a",
        "written_unix_ns": 1_795_310_252_000_000_000 + pid,
        "overhead_ns": 10_000_000,
        "overhead_cpu_ns": 9_000_000,
        **keys,
    }


def main(pid: int = 100, **setup: Any) -> dict[str, Any]:
    sizes = {"world_size": 1, "data_parallel_size": 1, "data_parallel_size_local": 1, "nnodes": 1}
    return head("main", pid, ppid=1, setup={**sizes, "model": "tiny", **setup})


def core(pid: int, **keys: Any) -> dict[str, Any]:
    return head("engine_core", pid, **{"state": "ready", **keys})


def worker(pid: int, rank: int = 0, **keys: Any) -> dict[str, Any]:
    return head(
        "worker",
        pid,
        **{
            "rank": rank,
            "status": "native",
            "reason": None,
            "device": f"GPU-0000000{rank}-0000",
            "requested_bytes": 16 * GIB,
            "consumption": {"consumed_bytes": GIB},
            "final_bytes": 15 * GIB,
            "stock_bytes": 12 * GIB,
            "clamped": False,
            "foreign_delta_bytes": 3 * GIB,
            **keys,
        },
    )


def write(folder: Path, *reports: dict[str, Any]) -> None:
    for report in reports:
        name = {"main": "main", "engine_core": "engine"}.get(report["kind"], "")
        path = folder / f"vllm-{report['pid']}-{name or 'rank' + str(report['rank'])}.json"
        path.write_text(json.dumps(report))
