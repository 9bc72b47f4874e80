"""A recording with known contents: what ``memacct record`` writes, record by record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from memacct._units import GIB, MIB
from memacct.recording._frames import frame
from memacct.recording._types import HOST_TERMS, SCHEMA

if TYPE_CHECKING:
    from pathlib import Path

UUID = "GPU-516dcda0-0000-4000-8000-516dcda00000"
ORIGIN_NS = 5_000_000_000_000
WALL_NS = 1_700_000_000_000_000_000
PARENT, CHILD, NEIGHBOUR = 100, 101, 900
#: What hurts where a name is not escaped: markup, a formula, the end of a script, no UTF-8.
CHILD_NAME = "=<b>[red]</script>\udcff"


def at(seconds: float) -> int:
    return ORIGIN_NS + round(seconds * 1e9)


def records(hz: float = 10.0) -> list[dict[str, Any]]:
    """Five samples: the child comes at 0.2 s and ends at 0.4 s, the neighbour takes 1 GiB."""
    return [
        _header(hz),
        _process(0, PARENT, 1, "python", "python /x/serve.py --port 1", role="python"),
        _sample(0.0, [_host(0, 100 * MIB)], []),
        {
            "kind": "devices",
            "at_ns": at(0.05),
            "driver_version": "580.65",
            "reason": None,
            "devices": [
                {
                    "uuid": UUID,
                    "index": 0,
                    "name": "NVIDIA H100",
                    "total_bytes": 16 * GIB,
                    "parent_uuid": None,
                }
            ],
        },
        {"kind": "foreign", "pid": NEIGHBOUR, "start_ticks": 7, "name": "other"},
        _sample(0.1, [], [], device=_device(0, 2)),
        _process(1, CHILD, PARENT, CHILD_NAME, CHILD_NAME),
        _sample(0.2, [_host(0, 150 * MIB), _host(1, 400 * MIB)], [], device=_device(5, 2)),
        _sample(0.3, [_host(1, 300 * MIB)], [], device=_device(6, 3)),
        _sample(0.4, [_host(0, 120 * MIB)], [1], device=_device(0, 3)),
        _end(0.45),
    ]


def write_run(path: Path, wanted: list[dict[str, Any]] | None = None) -> Path:
    path.write_bytes(b"".join(map(frame, records() if wanted is None else wanted)))
    return path


def _header(hz: float) -> dict[str, Any]:
    return {
        "kind": "run",
        "schema_version": SCHEMA,
        "memacct_version": "0.1.0",
        "python_version": "3.11.7",
        "command": ["python", "/x/serve.py", "--name", "</script><b>"],
        "pid": PARENT,
        "folder": "/x",
        "hostname": "host",
        "kernel": "6.18",
        "machine": "x86_64",
        "cpu_count": 2,
        "memory_total_bytes": 64 * GIB,
        "clock": {"monotonic_ns": ORIGIN_NS, "wall_ns": WALL_NS},
        "hz": hz,
        "budget_ratio": 0.02,
        "host": "breakdown",
        "host_terms": list(HOST_TERMS),
        "timeline_dir": None,
    }


def _process(
    number: int, pid: int, parent: int, name: str, title: str, *, role: str | None = None
) -> dict[str, Any]:
    return {
        "kind": "process",
        "at_ns": at(0.0 if number == 0 else 0.2),
        "process": number,
        "pid": pid,
        "start_ticks": 50 + number,
        "parent_pid": parent,
        "depth": number,
        "name": name,
        "title": title,
        "role": role,
        "rank": None,
    }


def _host(number: int, rss_bytes: int) -> list[int | None]:
    # The kernel saw 10 MiB more than any sample did.
    return [number, rss_bytes, rss_bytes - MIB, MIB, 0, 0, rss_bytes + 10 * MIB, None, None]


def _sample(
    seconds: float, host: list[Any], ended: list[int], device: dict[str, Any] | None = None
) -> dict[str, Any]:
    sample = {"kind": "sample", "at_ns": at(seconds), "span_ns": 1000, "complete": True}
    sample |= {"host": host, "ended": ended}
    return sample if device is None else {**sample, "devices": [device]}


def _device(tree_gib: int, foreign_gib: int) -> dict[str, Any]:
    listed: list[list[Any]] = [[NEIGHBOUR, foreign_gib * GIB, "foreign"]]
    if tree_gib:
        listed.insert(0, [CHILD, tree_gib * GIB, "tree"])
    return {
        "device": 0,
        "span_ns": 2000,
        "consistent": True,
        "total_bytes": 16 * GIB,
        "free_bytes": (15 - tree_gib - foreign_gib) * GIB,
        "device_used_bytes": (tree_gib + foreign_gib) * GIB + GIB // 2,
        "reserved_bytes": GIB // 2,
        "own_bytes": 0,
        "tree_bytes": tree_gib * GIB,
        "foreign_bytes": foreign_gib * GIB,
        "unattributed_bytes": GIB // 2,
        "processes": listed,
    }


def _end(seconds: float) -> dict[str, Any]:
    return {
        "kind": "end",
        "at_ns": at(seconds),
        "reason": "exited",
        "exit_code": 3,
        "signal": None,
        "elapsed_ns": round(seconds * 1e9),
        "samples_count": 5,
        "skipped_count": 2,
        "missed_count": 0,
        "errors_count": 0,
        "own_cpu_ns": 200_000_000,
        "sampling_cpu_ns": 9_000_000,
        "sampling_cpu_ratio": 0.02,
        "command_cpu_ns": 400_000_000,
        "sampling_to_command_cpu_ratio": 0.0225,
        "own_wall_before_ns": 150_000_000,
        "own_wall_ratio": 0.33,
        "largest_rss_bytes": 410 * MIB,
        "processes_count": 2,
        "host_peak_bytes": 550 * MIB,
        "host_peak_at_ns": at(0.2),
        "device_peaks": [{"device": 0, "tree_bytes": 6 * GIB, "at_ns": at(0.3)}],
        "peaks": [],
    }
