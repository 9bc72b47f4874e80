"""(9) In which list do clients of MPS appear, with what bytes, and what does their limit show?"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_process import DeviceProcess

from memacct import _core
from memacct._units import MIB

from .answer import Answer, change
from .nvml import KINDS, Nvml

CONTROL = "nvidia-cuda-mps-control"
START_DEADLINE_S = 15.0
END_DEADLINE_S = 5.0
HELD_BYTES = (66 * MIB, 130 * MIB)
LIMITED = """
free, total = ctypes.c_size_t(), ctypes.c_size_t()
call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
pointer = ctypes.c_uint64()
code = cuda().cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(2 * 2**30))
result = {"cuda_free": free.value, "cuda_total": total.value, "code_of_2_GiB": code}
"""


def ask(short: bool) -> Answer:
    answer = Answer()
    reason = _why_not()
    if reason:
        answer.skip("rows of MPS clients", reason)
        answer.text = f"not asked: {reason}"
        return answer
    nvml = Nvml()
    try:
        _ask(answer, nvml)
    except (AssertionError, RuntimeError) as error:
        answer.skip("clients of MPS", str(error).strip().splitlines()[-1])
    end_s = time.monotonic() + END_DEADLINE_S
    while running_daemons() and time.monotonic() < end_s:
        time.sleep(0.05)
    left = running_daemons()
    answer.check("the daemon has ended with its question", not left, left)
    return answer


def _ask(answer: Answer, nvml: Nvml) -> None:
    with _daemon(Path(os.environ["MEMACCT_QUESTION_FOLDER"])) as environ:
        _clients(answer, nvml, environ)
        with DeviceProcess(
            None, env={**environ, "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT": "0=1G"}
        ) as limited:
            limited.run("context()")
            answer.figures["client_with_a_limit_of_1_GiB"] = limited.run(LIMITED)


def running_daemons() -> list[int]:
    """Returns the pids of what looks like MPS."""
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        with contextlib.suppress(OSError):
            if comm.read_text().startswith("nvidia-cuda-mps"):
                found.append(int(comm.parent.name))
    return found


def _why_not() -> str:
    """Returns why no daemon can be started here; "" if one can. Another's is left alone."""
    if shutil.which(CONTROL) is None:
        return f"there is no {CONTROL} here"
    if running_daemons():
        return "an MPS daemon runs here already, and is left alone"
    named = os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")  # its default
    if (Path(named) / "control").exists():
        return f"{named} belongs to an MPS daemon, which is left alone"
    return ""


@contextlib.contextmanager
def _daemon(folder: Path) -> Iterator[dict[str, str]]:
    """A daemon of our own with its own folders; yields the environment of its clients."""
    pipes, logs = folder / "mps", folder / "mps-log"
    pipes.mkdir()
    logs.mkdir()
    environ = {"CUDA_MPS_PIPE_DIRECTORY": str(pipes), "CUDA_MPS_LOG_DIRECTORY": str(logs)}
    whole = {**os.environ, **environ}
    daemon = subprocess.Popen([CONTROL, "-f"], env=whole, stdin=subprocess.DEVNULL)
    try:
        deadline_s = time.monotonic() + START_DEADLINE_S
        while not (pipes / "control").exists():
            if daemon.poll() is not None or time.monotonic() > deadline_s:
                log = "".join(path.read_text()[-300:] for path in logs.iterdir())
                raise RuntimeError(f"{CONTROL} did not start: {log}")
            time.sleep(0.05)
        yield environ
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run([CONTROL], input="quit\n", text=True, env=whole, check=False, timeout=8)
            daemon.wait(5)
        daemon.terminate()
        daemon.wait(5)


def _clients(answer: Answer, nvml: Nvml, environ: dict[str, str]) -> None:
    before = nvml.free_bytes()
    with DeviceProcess(None, env=environ) as one, DeviceProcess(None, env=environ) as two:
        clients = (one, two)
        for client in clients:
            client.run("context(); attempt(_core.identify, 0)")
        first = [client.read() for client in clients]
        for client, size in zip(clients, HELD_BYTES, strict=True):
            client.run(f"allocate({size})")
        held = [client.read() for client in clients]
        answer.figures["taken_of_free"] = change(before, nvml.free_bytes())
        answer.figures["pids"] = {"clients": [one.pid, two.pid], "mps": running_daemons()}
        lists = _lists(nvml)
        answer.figures["lists"] = lists
        answer.figures["memacct_outside"] = [
            row.to_dict() for row in _core.read_device(0).processes
        ]
        answer.figures["attribution"] = held[0]["attribution"]
        gains = [change(b["own_bytes"], a["own_bytes"]) for a, b in zip(first, held, strict=True)]
    answer.figures["own_gains"] = gains
    answer.check("a client's own is what it allocated", gains == list(HELD_BYTES), gains)
    where = [
        [kind for kind, rows in lists.items() if pid in dict(rows)] for pid in (one.pid, two.pid)
    ]
    answer.check("clients are in the MPS list", all("MPSCompute" in each for each in where), where)
    answer.text = f"clients are in {where[0]}, and gained {gains} of {list(HELD_BYTES)} B"


def _lists(nvml: Nvml) -> dict[str, Any]:
    found = {kind: list(nvml.list(kind, nvml.newest(kind)).rows().items()) for kind in KINDS}
    if nvml.has("nvmlDeviceGetRunningProcessDetailList"):
        found["DetailList all"] = list(nvml.details().rows().items())
    return found
