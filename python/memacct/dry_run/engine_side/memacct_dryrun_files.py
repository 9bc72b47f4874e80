"""What an engine's processes leave for the dry run: one JSON file each, whole at every instant.

A process that is killed, runs out of memory or hangs has told by then what it knew.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import traceback
from pathlib import Path
from typing import Any

FOLDER = "MEMACCT_DRYRUN_FOLDER"
STATUS = "MEMACCT_DRYRUN_STATUS"


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes `value` so that a reader sees all of it or nothing."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(json.dumps(value, default=str))
    partial.replace(path)


class Record:
    """One process's file.

    Args:
        name: "worker-0" and so on; without ".json".
    """

    def __init__(self, name: str, **facts: Any) -> None:
        self.path = Path(os.environ[FOLDER]) / f"{name}.json"
        self.facts: dict[str, Any] = {"pid": os.getpid(), "moments": {}, "phases": [], **facts}
        self.write()

    def write(self) -> None:
        """Writes all facts."""
        write_json(self.path, self.facts)

    def tell(self, **facts: Any) -> None:
        """Adds facts; those that are None are not known and are left out."""
        self.facts.update({key: value for key, value in facts.items() if value is not None})
        self.write()

    def moment(self, name: str, **reading: Any) -> None:
        """Adds what was true at a moment; a later one of the same name replaces it."""
        self.facts["moments"][name] = {"at_s": time.monotonic(), **reading}
        self.write()

    def fail(self, where: str, error: BaseException, **facts: Any) -> None:
        """Adds what ended the start; the first word is kept: what follows only wraps it."""
        self.facts.setdefault(
            "error",
            {"where": where, "type": type(error).__name__, "message": str(error), **facts},
        )
        self.write()

    def phase(self, name: str) -> Phase:
        """A step of the start, for a ``with`` block."""
        return Phase(self, name)


class Phase:
    """Notes when a step began and when it ended."""

    def __init__(self, record: Record, name: str) -> None:
        self.record, self.entry = record, {"name": name, "begin_s": 0.0, "end_s": None}

    def __enter__(self) -> Phase:
        self.entry["begin_s"] = time.monotonic()
        self.record.facts["phases"].append(self.entry)
        self.record.write()
        return self

    def __exit__(self, *_: object) -> None:
        self.entry["end_s"] = time.monotonic()
        self.record.write()


class LeftToTheLog:
    """For a ``with`` block: what cannot be read is left out, and ends no engine; its log says why.

    Of a version of vLLM or torch that nobody has seen, anything may be different.
    """

    def __enter__(self) -> None:
        """Nothing."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> bool:
        if not isinstance(error, Exception):
            return False
        traceback.print_exception(error)
        return True


def machine_status() -> dict[str, Any] | None:
    """The simulated machine's true state, who holds how much of each device.

    The program that tells it is started without the simulator's libraries, so that it is none
    of those who hold something.
    """
    program = os.environ.get(STATUS)
    if not program:
        return None
    environ = {
        key: value
        for key, value in os.environ.items()
        if key not in {"LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH"}
    }
    done = subprocess.run([program, "status"], env=environ, capture_output=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None
