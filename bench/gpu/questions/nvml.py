"""NVML without memacct: its calls as they are, so that memacct's reading can be judged by them."""

from __future__ import annotations

import ctypes
import itertools
from dataclasses import dataclass

NOT_AVAILABLE = 0xFFFF_FFFF_FFFF_FFFF
INSUFFICIENT_SIZE = 7
MEMORY_V2_TAG = 0x02000028
DETAIL_LIST_TAG = 0x01000018
KINDS = ("Compute", "Graphics", "MPSCompute")
SUFFIXES = ("", "_v2", "_v3")
FILL = 0xAA


@dataclass(frozen=True)
class RawList:
    """What a list call wrote: `written` is its whole buffer, filled with 0xAA before."""

    code: int
    count: int
    written: bytes

    @property
    def stride_bytes(self) -> int | None:
        """Size of a record, by the last byte that was written; None if there is none."""
        length = len(self.written.rstrip(bytes([FILL])))
        fits = [size for size in (16, 24, 32) if 0 <= size * self.count - length < 8]
        return fits[0] if self.count and len(fits) == 1 else None

    def rows(self, stride_bytes: int | None = None) -> dict[int, int | None]:
        """Returns each pid with its bytes; None where the driver tells none."""
        stride = stride_bytes or self.stride_bytes or 24
        found = {}
        for start in range(0, stride * self.count, stride):
            pid = int.from_bytes(self.written[start : start + 4], "little")
            size = int.from_bytes(self.written[start + 8 : start + 16], "little")
            found[pid] = None if size == NOT_AVAILABLE else size
        return found

    def distance_of(self, pids: list[int]) -> int | None:
        """Returns the least distance between known pids in it: the size of a record too."""
        places = sorted(
            at
            for at in range(0, len(self.written) - 3, 8)
            if int.from_bytes(self.written[at : at + 4], "little") in pids
        )
        gaps = [after - before for before, after in itertools.pairwise(places)]
        return min(gaps, default=None)


class DetailList(ctypes.Structure):
    _fields_ = (
        ("version", ctypes.c_uint),
        ("mode", ctypes.c_uint),
        ("count", ctypes.c_uint),
        ("records", ctypes.c_void_p),
    )


class Nvml:
    """One initialisation of NVML, and its first device."""

    def __init__(self) -> None:
        self.library = ctypes.CDLL("libnvidia-ml.so.1")
        self.device = ctypes.c_void_p()
        for name, args in (
            ("nvmlInit_v2", ()),
            ("nvmlDeviceGetHandleByIndex_v2", (0, ctypes.byref(self.device))),
        ):
            code = getattr(self.library, name)(*args)
            if code != 0:
                raise OSError(code, f"{name} returned {code}")

    def has(self, symbol: str) -> bool:
        return hasattr(self.library, symbol)

    def text(self, symbol: str, *, of_device: bool = False) -> str | None:
        """Returns the text that a function of this form tells."""
        out = ctypes.create_string_buffer(96)
        first = (self.device,) if of_device else ()
        code = getattr(self.library, symbol)(*first, out, 96) if self.has(symbol) else 13
        return out.value.decode(errors="replace") if code == 0 else None

    def numbers(self, symbol: str, count: int = 1) -> tuple[int, ...] | str:
        """Returns `count` numbers of 32 bits that a function tells, or why it does not."""
        if not self.has(symbol):
            return "not in this driver"
        out = [ctypes.c_uint() for _ in range(count)]
        code = getattr(self.library, symbol)(self.device, *map(ctypes.byref, out))
        return tuple(value.value for value in out) if code == 0 else f"error {code}"

    def memory_v1(self) -> dict[str, int]:
        out = (ctypes.c_uint64 * 3)()
        code = self.library.nvmlDeviceGetMemoryInfo(self.device, out)
        return {"code": code, "total": out[0], "free": out[1], "used": out[2]}

    def memory_v2(self, tag: int = MEMORY_V2_TAG) -> dict[str, int]:
        if not self.has("nvmlDeviceGetMemoryInfo_v2"):
            return {"code": 13}
        out = (ctypes.c_uint64 * 5)(tag)
        code = self.library.nvmlDeviceGetMemoryInfo_v2(self.device, out)
        names = ("total", "reserved", "free", "used")
        return {"code": code, **dict(zip(names, out[1:], strict=True))}

    def free_bytes(self) -> int:
        return self.memory_v1()["free"]

    def list(self, kind: str = "Compute", suffix: str = "_v3", room: int = 64) -> RawList:
        """Calls one of the list functions with room for that many records of 32 bytes."""
        count = ctypes.c_uint(room)
        out = (ctypes.c_ubyte * (room * 32 + 64))(*([FILL] * (room * 32 + 64)))
        name = f"nvmlDeviceGet{kind}RunningProcesses{suffix}"
        code = getattr(self.library, name)(self.device, ctypes.byref(count), out)
        return RawList(code, count.value if code == 0 else 0, bytes(out))

    def needed(self, kind: str, suffix: str) -> tuple[int, int]:
        """Returns the code and the number of records that it tells when it is given no room."""
        count = ctypes.c_uint(0)
        name = f"nvmlDeviceGet{kind}RunningProcesses{suffix}"
        code = getattr(self.library, name)(self.device, ctypes.byref(count), None)
        return code, count.value

    def details(self, mode: int = 3, room: int = 64) -> RawList:
        """Calls the list with a version tag; modes: compute, graphics, MPS, all."""
        out = (ctypes.c_ubyte * (room * 32 + 64))(*([FILL] * (room * 32 + 64)))
        given = DetailList(DETAIL_LIST_TAG, mode, room, ctypes.addressof(out))
        code = self.library.nvmlDeviceGetRunningProcessDetailList(self.device, ctypes.byref(given))
        return RawList(code, given.count if code == 0 else 0, bytes(out))

    def newest(self, kind: str = "Compute") -> str:
        """Returns the suffix to prefer: `_v2` has not changed its records in any driver."""
        names = {s: f"nvmlDeviceGet{kind}RunningProcesses{s}" for s in ("_v2", "_v3", "")}
        return next(suffix for suffix, name in names.items() if self.has(name))

    def processes(self) -> dict[int, int | None]:
        """Returns the compute list as it stands."""
        return self.list("Compute", self.newest()).rows()
