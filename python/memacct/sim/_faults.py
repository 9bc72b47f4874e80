"""What a simulated driver does wrong, or differently, for one process tree."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from memacct._units import parse_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PidWorld = Literal["own", "host", "outer", "hidden"]
ListName = Literal["compute", "graphics", "mps"]
PidKey = int | Literal["self", "all"]

_FUNCTION = re.compile(r"(nvml|cu|cuda|nccl|cublas)\w*\*?")
_RECORD_SIZES_BYTES = (16, 24, 32)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFault:
    """What happens in some calls of one function (or of all that a trailing ``*`` matches).

    Attributes:
        function: the symbol's name, such as "nvmlDeviceGetMemoryInfo_v2" or "nvml*".
        error: the code that the call returns without doing anything; None: it works.
        after_count: calls of this process that pass untouched first.
        for_count: calls that are affected then; None: all.
        latency_us: microseconds that the call takes longer.
        charge_bytes: change of another process's use inside the call, before it reads;
            text such as "+3GiB" or "-2MiB" or a signed int.
        charge_pid: that process; None: the largest other holder, and if there is none
            the bytes are held by nobody.
        device: the device that the change is on.
    """

    function: str
    error: int | None = None
    after_count: int = 0
    for_count: int | None = None
    latency_us: int | None = None
    charge_bytes: int | str | None = None
    charge_pid: int | None = None
    device: int = 0

    def __post_init__(self) -> None:
        if not _FUNCTION.fullmatch(self.function):
            raise ValueError(
                f"function={self.function!r} is not a name such as 'nvmlInit_v2' or 'nvml*'"
            )

    def text(self) -> str:
        """Returns the rule in the form of MEMACCT_SIM_FAULTS."""
        options = {
            "error": self.error,
            "after": self.after_count or None,
            "for": self.for_count,
            "latency_us": self.latency_us,
            "charge": None if self.charge_bytes is None else _signed_bytes(self.charge_bytes),
            "pid": self.charge_pid,
            "device": self.device or None,
        }
        given = [f"{key}={value}" for key, value in options.items() if value is not None]
        return f"{self.function}: {' '.join(given)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """All faults of one process tree, and the world it lives in.

    Attributes:
        calls: faults of single functions.
        pids: what pids NVML lists: "own" (as the caller sees them), "host" (numbers that
            match no process here, the same for every caller), "outer" (the machine's own
            numbers, whatever PID namespace asks; see ``MEMACCT_SIM_HOST_PROC``) or "hidden"
            (only processes of the caller's container, which is the process tree started with
            these faults).
        pid_bytes: what a pid's record says instead of its bytes; None is "N/A" (all ones).
        list_bytes: what every record of one list says instead of its bytes; None is "N/A".
        record_bytes: size of the records (16, 24 or 32) that the list functions of version
            1 (no suffix), 2 or 3 write.
        missing: symbols that the libraries do not have.
    """

    calls: Sequence[CallFault] = ()
    pids: PidWorld = "own"
    pid_bytes: Mapping[PidKey, int | None] = field(default_factory=dict)
    list_bytes: Mapping[ListName, int | None] = field(default_factory=dict)
    record_bytes: Mapping[int, int] = field(default_factory=dict)
    missing: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.pids not in get_args(PidWorld):
            raise ValueError(f"pids={self.pids!r} is not one of {get_args(PidWorld)}")
        for name in self.list_bytes:
            if name not in get_args(ListName):
                raise ValueError(f"list_bytes: {name!r} is not one of {get_args(ListName)}")
        for version, size in self.record_bytes.items():
            if version not in (1, 2, 3) or size not in _RECORD_SIZES_BYTES:
                raise ValueError(
                    f"record_bytes={{{version!r}: {size!r}}} is not a version 1 to 3 with a "
                    f"size of {_RECORD_SIZES_BYTES}"
                )

    def text(self) -> str:
        """Returns the faults in the form of MEMACCT_SIM_FAULTS."""
        rules = [call.text() for call in self.calls]
        if self.pids != "own":
            rules.append(f"pids: {self.pids}")
        if self.pid_bytes:
            pairs = (f"{k}={'na' if v is None else v}" for k, v in self.pid_bytes.items())
            rules.append("bytes: " + " ".join(pairs))
        if self.list_bytes:
            pairs = (f"{k}={'na' if v is None else v}" for k, v in self.list_bytes.items())
            rules.append("lists: " + " ".join(pairs))
        if self.record_bytes:
            rules.append("records: " + " ".join(f"v{k}={v}" for k, v in self.record_bytes.items()))
        if self.missing:
            rules.append("missing: " + " ".join(self.missing))
        return "; ".join(rules)


def faults_text(faults: Faults | str | None) -> str:
    """Returns the text of faults in any of the forms that callers may give."""
    if faults is None:
        return ""
    return faults if isinstance(faults, str) else faults.text()


def missing_symbols(text: str) -> tuple[str, ...]:
    """Returns the symbols that a text of faults takes away, sorted."""
    names: set[str] = set()
    for rule in text.split(";"):
        name, _, listed = rule.partition(":")
        if name.strip() == "missing":
            names.update(listed.split())
    return tuple(sorted(names))


def _signed_bytes(value: int | str) -> int:
    if isinstance(value, int):
        return value
    if value.startswith("-"):
        return -parse_bytes(value[1:])
    return parse_bytes(value.removeprefix("+"))
