"""A worker extension in which an engine's other processes take memory during the profiling.

Loaded in the engine's workers. Before its own profiling run, rank 1 makes a context on the first
GPU and starts a daemon that holds memory there; rank 0 waits for that before its own, and writes
down who has registered.
"""

from __future__ import annotations

import ctypes
import json
import os
import time
from pathlib import Path
from typing import Any

from memacct_stage import StageExtension, before

LIMIT_S = 120


def folder() -> Path:
    """Where the test looks."""
    return Path(os.environ["MEMACCT_STAGE_DIR"])


def take_memory() -> None:
    """A context here on GPU 0, and a daemon with a context and memory there."""
    import device_process

    size_bytes = int(os.environ["FAMILY_DAEMON_BYTES"])
    context = ctypes.c_void_p()
    device_process.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), 0)
    device_process.unrelated(size_bytes)
    (folder() / "taken").touch()


def wait_and_look() -> None:
    """Until rank 1 has taken its memory."""
    deadline_s = time.monotonic() + LIMIT_S
    while not (folder() / "taken").exists():
        if time.monotonic() > deadline_s:
            raise TimeoutError("rank 1 has taken no memory")
        time.sleep(0.01)
    roles: dict[str, Any] = {}
    if os.environ.get("MEMACCT_ENGINE_ID"):
        from memacct.integrations.vllm import _family

        roles = {entry.title: entry.pid for entry in _family.family.entries()}
    (folder() / "registered.json").write_text(json.dumps(roles))


class FamilyExtension(StageExtension):
    """Mixed into the worker's class by vLLM."""

    @staticmethod
    def init_worker_extension(worker: Any) -> None:
        """Called by vLLM (0.33.0) when init_device has ended."""
        act = take_memory if worker.rank == 1 else wait_and_look
        before(worker.model_runner, "profile_run", act)
