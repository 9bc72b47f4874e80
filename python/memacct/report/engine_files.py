"""A folder of reports of engines' processes: what is in it, and what could not be read."""

from __future__ import annotations

import errno
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from memacct._errors import SourceReadError, SourceUnavailableError
from memacct._printable import printable
from memacct.report.engine_starts import SCHEMA_VERSION, merge_reports

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

_KINDS = ("main", "engine_core", "worker")
# A report has some tens of kilobytes; what is far larger is somebody else's.
_LARGEST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """What was found.

    Attributes:
        starts: each engine's start as ``merge_reports`` gives it, the oldest first.
        problems: a sentence for each file that could not be used, or not in full.
    """

    starts: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns plain data for JSON."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "engine_starts",
            "starts": list(self.starts),
            "problems": list(self.problems),
        }


def read_folder(folder: Path) -> Folder:
    """Returns the engines' starts that the files in ``folder`` tell of.

    Raises:
        SourceUnavailableError: there is no such folder, or no report in it.
        SourceReadError: it could not be read.
    """
    if not folder.exists():
        raise SourceUnavailableError(printable(str(folder)), "there is no such folder")
    if not folder.is_dir():
        raise SourceUnavailableError(printable(str(folder)), "this is a file, not a folder")
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        told = error.strerror or repr(error)
        raise SourceReadError(printable(str(folder)), told, error.errno or 0) from error
    reports: list[dict[str, Any]] = []
    problems: list[str] = []
    for path in paths:
        record, problem = _read(path)
        if record is not None:
            reports.append(record)
        if problem is not None:
            problems.append(f"{printable(path.name)}: {problem}")
    if not reports:
        seen = f" ({'; '.join(problems)})" if problems else ""
        raise SourceUnavailableError(
            printable(str(folder)), f"no report of an engine is in this folder{seen}"
        )
    return Folder(starts=tuple(_starts(reports)), problems=tuple(problems))


def _read(path: Path) -> tuple[dict[str, Any] | None, str | None]:
    """Returns a report, and what is wrong with it; neither for files of other kinds."""
    if path.suffix == ".part":
        return None, "its process ended while it wrote this"
    if path.suffix != ".json":
        return None, None
    try:
        return _checked(json.loads(_text(path)))
    except OSError as error:
        return None, f"could not be read: {error.strerror}"
    except (ValueError, RecursionError) as error:
        return None, printable(f"torn, or not JSON: {error}")


def _text(path: Path) -> str:
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a file")
    if path.stat().st_size > _LARGEST_BYTES:
        raise OSError(errno.EFBIG, "too large for a report of memacct")
    return path.read_text(encoding="utf-8")


def _checked(record: Any) -> tuple[dict[str, Any] | None, str | None]:
    if not isinstance(record, dict) or not isinstance(record.get("pid"), int):
        return None, "not a report of memacct"
    version = record.get("schema_version")
    if version is None and "profiler" in record:
        record["kind"] = "worker" if "rank" in record else "main"
        return record, "written by an older memacct, shown as far as it tells"
    if record.get("kind") not in _KINDS:
        return None, "not a report of memacct"
    if record["kind"] == "worker" and not isinstance(record.get("rank"), int):
        return None, "a worker's report without its rank"
    if version != SCHEMA_VERSION:
        return record, f"of schema_version {version!r}, shown as far as {SCHEMA_VERSION} goes"
    return record, None


# ---------------------------------------------------------------- which belong together


def _starts(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    by_name: dict[Any, list[dict[str, Any]]] = {}
    for report in reports:
        by_name.setdefault(report.get("instance_id"), []).append(report)
    groups = list(by_name.values())
    _give_to_parents(groups)
    servers = _servers_by_parent(groups)
    _drop_unused(groups)
    starts = [_start(group, servers) for group in groups if group]
    return sorted(starts, key=lambda start: int(start["written_unix_ns"]))


def _give_to_parents(groups: list[list[dict[str, Any]]]) -> None:
    """Moves reports without a main process's to that of their parent, if it has none yet.

    vLLM names an engine anew whenever its configuration is checked, so that a process which
    checks it before it reports would stand alone.
    """
    childless = {_process(group[0]): group for group in groups if _only_mains(group)}
    for group in groups:
        if any(report["kind"] == "main" for report in group):
            continue
        parents = [childless[parent] for parent in map(_parent, group) if parent in childless]
        if parents:
            parents[0].extend(group)
            group.clear()


def _servers_by_parent(
    groups: list[list[dict[str, Any]]],
) -> dict[tuple[Any, Any], list[dict[str, Any]]]:
    """Takes the processes out that another one's start started only to take requests.

    Each makes the configuration anew, so that its ``instance_id`` is of no engine.
    """
    mains = {_process(r) for group in groups for r in group if r["kind"] == "main"}
    servers: dict[tuple[Any, Any], list[dict[str, Any]]] = {}
    for group in groups:
        if _only_mains(group) and _parent(group[0]) in mains:
            servers.setdefault(_parent(group[0]), []).extend(group)
            group.clear()
    return servers


def _drop_unused(groups: list[list[dict[str, Any]]]) -> None:
    """Drops configurations for which nothing was started, where their process started others."""
    starters = {_process(r) for group in groups if not _only_mains(group) for r in group}
    for group in groups:
        if _only_mains(group) and _process(group[0]) in starters:
            group.clear()


def _only_mains(group: list[dict[str, Any]]) -> bool:
    return bool(group) and all(report["kind"] == "main" for report in group)


def _parent(report: dict[str, Any]) -> tuple[Any, Any]:
    return report.get("hostname"), report.get("ppid")


def _process(report: dict[str, Any]) -> tuple[Any, Any]:
    return report.get("hostname"), report.get("pid")


def _start(
    group: Iterable[dict[str, Any]], servers: dict[tuple[Any, Any], list[dict[str, Any]]]
) -> dict[str, Any]:
    mains = [report for report in group if report["kind"] == "main"]
    engines: dict[int, dict[str, Any]] = {}
    for report in group:
        if report["kind"] != "main":
            engine = engines.setdefault(int(report.get("data_parallel_rank") or 0), {"workers": []})
            if report["kind"] == "worker":
                engine["workers"].append(report)
            else:
                engine.update(report)
    for engine in engines.values():
        engine["workers"] = _newest_of_each_rank(engine["workers"])
    cores = [{"data_parallel_rank": rank, **engine} for rank, engine in engines.items()]
    main = mains[0] if mains else None
    return merge_reports(main, cores, api_servers=servers.get(_process(main), ()) if main else ())


def _newest_of_each_rank(workers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A worker that is initialised again reports again."""
    newest = {w["rank"]: w for w in sorted(workers, key=lambda w: w.get("written_unix_ns") or 0)}
    return list(newest.values())
