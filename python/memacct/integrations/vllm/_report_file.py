"""One JSON file for each of the engine's processes, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct.integrations.vllm._own_time import own_time

if TYPE_CHECKING:
    from collections.abc import Mapping


def write_report(folder: str | None, name: str, data: Mapping[str, Any]) -> None:
    """Writes ``vllm-<pid>-<name>.json`` with ``data``, this pid and memacct's own time.

    Args:
        folder: made if it is not there; None: nothing is written.
        name: ``rank0`` for a worker, ``main`` for the process that configured the engine.
        data: what JSON can hold.
    """
    if folder is None:
        return
    path = Path(folder) / f"vllm-{os.getpid()}-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    spent = own_time.spent()
    record = {
        **data,
        "pid": os.getpid(),
        "overhead_ns": spent.wall_ns,
        "overhead_cpu_ns": spent.cpu_ns,
    }
    part.write_text(json.dumps(record, indent=1))
    part.replace(path)
