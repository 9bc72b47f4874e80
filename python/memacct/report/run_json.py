"""A recording as plain data: what ``memacct report --json`` prints (docs/run-file.md)."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memacct.report.run_words import seconds

if TYPE_CHECKING:
    from memacct.report.run_account import DevicePeak, ProcessRow, RunAccount
    from memacct.report.startup_types import StartTree

#: Of this data; raised when a key changes its meaning or goes.
SCHEMA = 1


def run_data(account: RunAccount, tree: StartTree | None = None) -> dict[str, Any]:
    """Returns what JSON can hold: the recording and its account; unknown is None. Pure."""
    run = account.run
    return {
        "schema_version": SCHEMA,
        "kind": "run",
        "source": run.source,
        "state": run.state,
        "torn_bytes": run.torn_bytes,
        "header": {key: value for key, value in run.header.items() if key != "kind"},
        "driver": dict(run.driver),
        "samples_ns": list(run.samples_ns),
        "host_totals_bytes": list(account.host_totals),
        "host_peak": _host_peak(account),
        "processes": [_process(row) for row in account.rows],
        "devices": [_device(account, number) for number in range(len(run.devices))],
        "machine": [point._asdict() for point in run.machine],
        "errors": [dict(error) for error in run.errors],
        "end": None if run.end is None else dict(run.end),
        "start_tree": None if tree is None else tree.as_data(),
    }


def _host_peak(account: RunAccount) -> dict[str, Any] | None:
    peak = account.host_peak
    if peak is None:
        return None
    return {
        "at_ns": peak.at_ns,
        "at_s": seconds(account.run, peak.at_ns),
        "total_bytes": peak.total_bytes,
        "holders": [
            {"process": process.number, "pid": process.pid, "counted_bytes": size}
            for process, size in peak.holders
        ],
    }


def _process(row: ProcessRow) -> dict[str, Any]:
    process = row.process
    names = ("number", "pid", "start_ticks", "parent_pid", "depth", "name", "title", "role")
    return {
        **{name: getattr(process, name) for name in (*names, "rank", "first_ns", "ended_ns")},
        "peak_rss_bytes": row.peak_bytes,
        "peak_exact": row.exact,
        "sampled_peak_at_ns": row.sampled_at_ns,
        "growth_bytes": row.growth_bytes,
        "device_peak_bytes": row.device_peak_bytes,
        "points": [point._asdict() for point in process.points],
    }


def _device(account: RunAccount, number: int) -> dict[str, Any]:
    device = account.run.devices[number]
    peaks = [peak for peak in account.device_peaks if peak.device is device]
    return {
        "number": number,
        "uuid": device.uuid,
        "index": device.index,
        "name": device.name,
        "parent_uuid": device.parent_uuid,
        "peak": _peak(peaks[0]) if peaks else None,
        "points": [
            {
                "at_ns": point.at_ns,
                "span_ns": point.span_ns,
                "consistent": point.consistent,
                **point.terms,
                "processes": [each._asdict() for each in point.processes],
            }
            for point in device.points
        ],
        "events": [asdict(event) for event in device.events],
    }


def _peak(peak: DevicePeak) -> dict[str, Any]:
    return {
        "at_ns": peak.point.at_ns,
        "of": "tree" if peak.of_tree else "device",
        "equation_bytes": peak.equation(),
        "total_bytes": peak.point.terms["total_bytes"],
        "holds": peak.holds,
    }
