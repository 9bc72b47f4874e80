"""A process that makes a CUDA context for a moment, to see whether it finds itself listed.

Run as a program it is that process: ``python -m memacct.doctor._probe``.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from memacct import _core
from memacct._errors import MemacctError
from memacct.doctor._facts import OwnRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

_LIMIT_S = 60.0  # a GPU without persistence mode takes seconds to wake


def probe_own_record(environ: Mapping[str, str]) -> OwnRecord:
    """Returns how a process with a context on CUDA's first device was found; takes a second."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "memacct.doctor._probe"],
            env=dict(environ),
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        return OwnRecord(**json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return OwnRecord(error=f"it did not come up within {_LIMIT_S:g} s")
    except (OSError, ValueError, TypeError) as error:
        return OwnRecord(error=str(error))


def _look() -> dict[str, Any]:
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return {"error": str(error)}
    for name, *arguments in (
        ("cuInit", 0),
        ("cuDevicePrimaryCtxRetain", ctypes.byref(ctypes.c_void_p()), 0),
    ):
        code = getattr(library, name)(*arguments)
        if code != 0:
            return {"error": f"{name} returned {code}"}
    try:
        (device, *_) = _core.read_devices("auto")
    except (MemacctError, ValueError) as error:
        return {"error": str(error) or "no device was read"}
    own_pid = device.attribution.own_pid
    listed = {process.pid: process.process_used_bytes for process in device.processes}
    return {
        "uuid": device.uuid,
        "source": device.attribution.source,
        "own_bytes": device.own_bytes,
        "own_pid": own_pid,
        "listed_bytes": None if own_pid is None else listed.get(own_pid),
        "reason": device.attribution.reason,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_look()))
