"""One JSON file for each of the engine's processes, written whole or not at all.

A process may have several reports: it is the engine's and a worker's where there is one GPU.
What was said last stays in memory, too, for those who ask the engine itself.
"""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._core import __version__
from memacct.integrations.vllm._own_time import own_time

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Of every report, and of what is merged of them; docs/vllm.md says what the fields mean.
SCHEMA_VERSION = 1

_KINDS = {"main": "main", "engine": "engine_core"}

# By process as well: a forked child has its parent's memory, but not its reports.
_last: dict[tuple[int, str], dict[str, Any]] = {}
# How many starts of this process have reported by that name: each keeps its file.
_earlier: dict[tuple[int, str], int] = {}


def write_report(folder: str | None, name: str, data: Mapping[str, Any]) -> None:
    """Writes ``vllm-<pid>-<name>.json`` with ``data``, who wrote it, and memacct's own time.

    Args:
        folder: made if it is not there; None: nothing is written.
        name: ``rank0`` for a worker, ``engine`` for the engine core, ``main`` for the process
            that configured the engine.
        data: what JSON can hold.
    """
    spent = own_time.spent()
    record = {
        "schema_version": SCHEMA_VERSION,
        "kind": _KINDS.get(name, "worker"),
        "memacct_version": __version__,
        **data,
        "pid": os.getpid(),
        "ppid": os.getppid(),
        "hostname": socket.gethostname(),
        "written_unix_ns": time.time_ns(),
        "overhead_ns": spent.wall_ns,
        "overhead_cpu_ns": spent.cpu_ns,
    }
    _last[os.getpid(), name] = record
    if folder is None:
        return
    path = Path(folder) / f"vllm-{os.getpid()}-{_file_name(name)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(record))
    part.replace(path)


def add_to_report(folder: str | None, name: str, sections: Mapping[str, Any]) -> None:
    """Writes the report ``name`` once more, with ``sections`` added or replaced.

    For what is known only later, such as why a start was refused.

    Args:
        folder: as for `write_report`.
        name: as for `write_report`; the report need not have been written before.
        sections: by key; what JSON can hold.
    """
    write_report(folder, name, {**(last_report(name) or {}), **sections})


def last_report(name: str) -> dict[str, Any] | None:
    """Returns what this process said last as ``name``; None: nothing yet."""
    return _last.get((os.getpid(), name))


def forget_report(name: str) -> None:
    """What is said next as ``name`` is of another start; a file that is there stays."""
    key = (os.getpid(), name)
    if _last.pop(key, None) is not None:
        _earlier[key] = _earlier.get(key, 0) + 1


def _file_name(name: str) -> str:
    earlier = _earlier.get((os.getpid(), name), 0)
    return f"{name}-{earlier + 1}" if earlier else name
