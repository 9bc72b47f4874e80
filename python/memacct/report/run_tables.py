"""A recording as one table, a row for each sample of each thing: CSV and Parquet."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

from memacct._errors import ConfigError
from memacct.recording import HostPoint
from memacct.report.run_account import called, device_at, host_at
from memacct.report.run_words import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from memacct.recording import Run, RunProcess

_HOST = tuple(name for name in HostPoint._fields if name != "at_ns")
_DEVICE = (
    *("total_bytes", "free_bytes", "device_used_bytes", "reserved_bytes", "own_bytes"),
    *("tree_bytes", "foreign_bytes", "unattributed_bytes"),
)
_NAMES = ("scope", "pid", "process", "name", "device", "owner")
#: Every column; docs/run-file.md says which scope has which.
COLUMNS = ("taken_ns", "elapsed_s", *_NAMES, *_HOST, *_DEVICE, "process_used_bytes")
_TEXTS = ("scope", "name", "device", "owner")


def rows(run: Run) -> Iterator[dict[str, Any]]:
    """Yields a row for each process, device and listed process in each sample, in order of time.

    What a row does not have is left out; what is not known is None.
    """
    # Only who lives is looked at: a recording may have thousands of short-lived processes.
    coming = sorted(run.processes, key=lambda process: -process.first_ns)
    alive: list[RunProcess] = []
    for at_ns in run.samples_ns:
        moment = {"taken_ns": at_ns, "elapsed_s": seconds(run, at_ns)}
        while coming and coming[-1].first_ns <= at_ns:
            alive.append(coming.pop())
        alive = [p for p in alive if p.ended_ns is None or p.ended_ns > at_ns]
        for process in sorted(alive, key=lambda p: p.number):
            point = host_at(process, at_ns)
            if point is not None:
                who = {"pid": process.pid, "process": process.number, "name": called(process)}
                values = dict(zip(_HOST, point[1:], strict=True))
                yield {**moment, "scope": "process", **who, **values}
        for device in run.devices:
            yield from _device_rows(run, device.number, at_ns, moment)


def _device_rows(
    run: Run, number: int, at_ns: int, moment: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    device = run.devices[number]
    point = device_at(device, at_ns)
    if point is None:
        return
    terms = {name: point.terms.get(name) for name in _DEVICE}
    yield {**moment, "scope": "device", "device": device.uuid, "name": device.name, **terms}
    for each in point.processes:
        name = run.names.get(each.pid) or None
        if each.number is not None:
            name = called(run.processes[each.number])
        yield {
            **moment,
            "scope": "device_process",
            "device": device.uuid,
            "pid": each.pid,
            "process": each.number,
            "name": name,
            "owner": each.owner,
            "process_used_bytes": each.process_used_bytes,
        }


def write_csv(run: Run, path: Path) -> None:
    """Writes the table as CSV: empty is unknown, or a column that the row does not have."""
    # Names may hold bytes that are no UTF-8.
    with path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows(run))


def write_parquet(run: Run, path: Path) -> None:
    """Writes the table as Parquet.

    Raises:
        ConfigError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ConfigError(
            "Parquet needs pyarrow: pip install 'memacct[report]'; or take --csv"
        ) from None
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in rows(run):
        for name, values in columns.items():
            value = row.get(name)
            values.append(_text(value) if name in _TEXTS else value)
    kinds = dict.fromkeys(COLUMNS, pa.int64())
    kinds |= dict.fromkeys(_TEXTS, pa.string()) | {"elapsed_s": pa.float64()}
    arrays = [pa.array(columns[name], kinds[name]) for name in COLUMNS]
    table = pa.Table.from_arrays(arrays, names=list(COLUMNS))
    pq.write_table(table, path, compression="zstd")


def _text(value: str | None) -> str | None:
    return None if value is None else value.encode("utf-8", "backslashreplace").decode()
