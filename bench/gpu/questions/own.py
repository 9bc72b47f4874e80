"""(3) Is the change of our own number what was allocated, to the byte, for each kind?"""

from __future__ import annotations

import ctypes
import os

from device_process import DeviceProcess, call, context, cuda

from memacct import _core
from memacct._units import MIB

from .answer import Answer, change
from .cuda import PAGE_BYTES, SIZES, IpcHandle, granularity_bytes, pages, series, view
from .nvml import Nvml

SHARED_BYTES = 64 * MIB
SHORT_SIZES = (1, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 14 * MIB)
SHARE = f"""
context()
attempt(_core.identify, 0)
allocate({SHARED_BYTES})
handle = (ctypes.c_ubyte * 64)()
code = cuda().cuIpcGetMemHandle(handle, ctypes.c_uint64(_pointers[-1]))
result = list(handle) if code == 0 else code
"""


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    context()
    found = _core.identify(0)
    answer.figures["attribution"] = found.to_dict()
    if view(nvml)["own"] is None:
        answer.skip("own bytes", f"unknown here: {found.reason}")
    sizes = SHORT_SIZES if short else SIZES
    for kind in ("cuMemAlloc", "cuMemCreate", "cuMemAllocAsync", "cuMemAllocHost"):
        _kind(answer, nvml, kind, sizes)
    answer.figures["cuMemCreate_granularity"] = granularity_bytes()
    _shared(answer, nvml)
    exact = [check for check in answer.checks if check["agrees"] is not False]
    answer.text = f"{len(exact)} of {len(answer.checks)} laws of own bytes hold as assumed"
    return answer


def _kind(answer: Answer, nvml: Nvml, kind: str, sizes: tuple[int, ...]) -> None:
    try:
        rows = series(nvml, kind, sizes)
    except (OSError, AttributeError) as error:
        answer.skip(kind, str(error))
        return
    answer.figures[kind] = rows
    known = [row for row in rows if row["own"] is not None]
    if not known:
        return
    wrong = [row for row in known if not _as_assumed(kind, row["size"], row["own"])]
    answer.check(f"{kind}: {_assumed(kind)}", not wrong, wrong or "all sizes")
    law = [row for row in known if row["own"] != -row["free"]]
    answer.check(f"{kind}: own gains what free loses", not law, law or "all sizes")
    listed = [row for row in known if row["listed"] != row["own"]]
    answer.check(f"{kind}: own is NVML's number", not listed, listed or "all sizes")
    left = [row for row in known if row["left_own"] or row["left_free"]]
    # A pool may keep what it has until it is trimmed; small blocks share a page that stays.
    stays = [row for row in left if row["size"] >= PAGE_BYTES]
    answer.check(f"{kind}: all is given back", not stays, left or "all sizes")


def _assumed(kind: str) -> str:
    if kind == "cuMemAllocHost":
        return "pinned host memory takes nothing of the device but a page"
    if kind == "cuMemAllocAsync":
        return "a pool grows by the size in pages of 2 MiB, or by blocks of 32 MiB"
    return "own grows by the size in pages of 2 MiB; less than 1 MiB may share a page"


def _as_assumed(kind: str, size_bytes: int, own_bytes: int) -> bool:
    whole = pages(size_bytes)
    if kind == "cuMemAllocHost":
        return 0 <= own_bytes <= PAGE_BYTES
    if kind == "cuMemAllocAsync":
        block = 32 * MIB
        return own_bytes in (0, whole, -(-size_bytes // block) * block)
    return own_bytes == whole or (size_bytes < MIB and kind == "cuMemAlloc" and own_bytes == 0)


def _shared(answer: Answer, nvml: Nvml) -> None:
    """Whose is memory that another process made and we opened?"""
    with DeviceProcess(None) as maker:
        maker.run("context(); attempt(_core.identify, 0)")
        before, theirs = view(nvml), maker.read()
        handle = maker.run(SHARE)
        if isinstance(handle, int):
            answer.skip("memory opened by IPC", f"cuIpcGetMemHandle returned {handle}")
            return
        made, pointer = view(nvml), ctypes.c_uint64()
        data = IpcHandle((ctypes.c_ubyte * 64)(*handle))
        code = cuda().cuIpcOpenMemHandle_v2(ctypes.byref(pointer), data, 1)
        if code != 0:
            answer.skip("memory opened by IPC", f"cuIpcOpenMemHandle_v2 returned {code}")
            return
        opened, owner = view(nvml), maker.read()
        call("cuIpcCloseMemHandle", pointer)
    figures = {
        "size": SHARED_BYTES,
        "opener_pid": os.getpid(),
        "owner_own": change(owner["own_bytes"], theirs["own_bytes"]),
        "opener_own": change(opened["own"], made["own"]),
        "opening_free": change(opened["free"], made["free"]),
        "opening_unattributed": change(opened["unattributed"], made["unattributed"]),
        "whole_free": change(opened["free"], before["free"]),
    }
    answer.figures["IPC"] = figures
    answer.check(
        "IPC: opening takes no memory of the device",
        figures["opening_free"] == 0,
        figures["opening_free"],
    )
    if figures["owner_own"] is not None:
        answer.check(
            "IPC: it is the owner's", figures["owner_own"] == SHARED_BYTES, figures["owner_own"]
        )
    answer.check(
        "IPC: what the opener's number gains (nothing was assumed)", None, figures["opener_own"]
    )
