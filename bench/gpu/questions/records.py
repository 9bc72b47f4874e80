"""(1) The records of NVML's lists: their length in each form, and how room is asked for."""

from __future__ import annotations

import os
from typing import Any

from device_process import DeviceProcess, context

from memacct import _core

from .answer import Answer
from .nvml import INSUFFICIENT_SIZE, KINDS, SUFFIXES, Nvml, RawList

EXPECTED = {"": (16,), "_v2": (24,), "_v3": (24, 32)}
DETAIL_MODES = ("compute", "graphics", "mps", "all")


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    context()
    with DeviceProcess(None) as other:
        other.run("context()")
        pids = [os.getpid(), other.pid]
        for kind in KINDS:
            for suffix in SUFFIXES:
                _list(answer, nvml, kind, suffix, pids)
        _details(answer, nvml, pids)
    strides = {name: row["stride"] for name, row in answer.figures.items() if row["count"]}
    answer.text = "bytes a record: " + ", ".join(f"{k} {v}" for k, v in strides.items())
    return answer


def _list(answer: Answer, nvml: Nvml, kind: str, suffix: str, pids: list[int]) -> None:
    symbol = f"nvmlDeviceGet{kind}RunningProcesses{suffix}"
    if not nvml.has(symbol):
        answer.skip(symbol, "not in this driver")
        return
    found = nvml.list(kind, suffix)
    figure = _figure(found, pids)
    code, needed = nvml.needed(kind, suffix)
    figure.update(code_without_room=code, count_without_room=needed)
    answer.figures[kind + suffix] = figure
    if found.count == 0:
        return
    stride = found.stride_bytes
    sizes = " or ".join(map(str, EXPECTED[suffix]))
    answer.check(f"{symbol} writes records of {sizes}", stride in EXPECTED[suffix], stride)
    probed = _core._probe_stride(
        found.written, capacity_bytes=len(found.written), count=found.count
    )
    answer.check("memacct's probe finds that length", probed == stride, probed)
    enough = code == INSUFFICIENT_SIZE and needed >= found.count
    answer.check("without room it tells the count with error 7", enough, [code, needed])


def _details(answer: Answer, nvml: Nvml, pids: list[int]) -> None:
    symbol = "nvmlDeviceGetRunningProcessDetailList"
    if not nvml.has(symbol):
        answer.skip(symbol, "not in this driver")
        return
    for mode, name in enumerate(DETAIL_MODES):
        found = nvml.details(mode)
        answer.figures[f"DetailList {name}"] = _figure(found, pids)
        if name == "compute":
            answer.check(f"{symbol} takes the tag 0x01000018", found.code == 0, found.code)
        if found.count:
            stride = found.stride_bytes
            answer.check(f"its records ({name}) are of 32", stride == 32, stride)


def _figure(found: RawList, pids: list[int]) -> dict[str, Any]:
    return {
        "code": found.code,
        "count": found.count,
        "stride": found.stride_bytes,
        # The same by another method: how far apart pids are that must be in it.
        "distance_of_known_pids": found.distance_of(pids),
    }
