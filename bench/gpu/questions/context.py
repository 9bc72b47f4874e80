"""What a CUDA context takes by steps, and whether its release gives that back."""

from __future__ import annotations

import ctypes

from device_process import DeviceProcess, call, context

from memacct import _core

from .answer import Answer, change
from .cuda import ALLOCATE, view
from .nvml import Nvml

FIRST_CONTEXT = "call('cuInit', 0)"


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    idle = nvml.memory_v2()
    before = nvml.free_bytes()
    context()
    _core.identify(0)
    first = view(nvml)
    answer.figures.update(
        idle_used=idle.get("used"),
        idle_reserved=idle.get("reserved"),
        own=first["own"],
        taken_of_free=change(before, first["free"]),
        unattributed=first["unattributed"],
    )
    _steps(answer, nvml)
    _second(answer, nvml)
    call("cuDevicePrimaryCtxRelease_v2", 0)
    left = change(before, nvml.free_bytes())
    answer.figures["left_after_release"] = left
    answer.check("what stays taken after its release (nothing was assumed)", None, left)
    taken = answer.figures["taken_of_free"]
    answer.check("the context is in its process's number", bool(first["own"]), first["own"])
    rest = change(taken, first["own"])
    answer.check("taken of the device and not in own (nothing was assumed)", None, rest)
    answer.text = f"a context takes {taken} B of the device, {first['own']} B of them own"
    return answer


def _steps(answer: Answer, nvml: Nvml) -> None:
    """What comes on top at first use: a stream, an event, a first allocation."""
    stream, event = ctypes.c_void_p(), ctypes.c_void_p()
    begin = view(nvml)
    call("cuStreamCreate", ctypes.byref(stream), 0)
    with_stream = view(nvml)
    call("cuEventCreate", ctypes.byref(event), 0)
    with_event = view(nvml)
    release = ALLOCATE["cuMemAlloc"](1)
    with_byte = view(nvml)
    release()
    rows = {
        "stream": (with_stream, begin),
        "event": (with_event, with_stream),
        "one byte": (with_byte, with_event),
    }
    answer.figures["own_by_step"] = {
        name: change(after["own"], earlier["own"]) for name, (after, earlier) in rows.items()
    }


def _second(answer: Answer, nvml: Nvml) -> None:
    """What another process's context takes, and what of it is nobody's."""
    mine = view(nvml)
    with DeviceProcess(None) as other:
        other.run("context()")
        held = view(nvml)
        answer.figures["second_context"] = {
            "taken_of_free": change(mine["free"], held["free"]),
            "listed": nvml.processes().get(other.pid),
            "unattributed": change(held["unattributed"], mine["unattributed"]),
            "our_own": change(held["own"], mine["own"]),
        }
    moved = answer.figures["second_context"]["our_own"]
    answer.check("another's context does not move our own", moved in (0, None), moved)
