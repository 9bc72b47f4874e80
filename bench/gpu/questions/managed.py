"""(3) Managed memory: on the device, and in no process's number."""

from __future__ import annotations

from device_process import context

from memacct import _core
from memacct._units import MIB

from .answer import Answer
from .cuda import pages, series
from .nvml import Nvml

SIZES = (2 * MIB, 64 * MIB)


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    context()
    _core.identify(0)
    rows = series(nvml, "cuMemAllocManaged", SIZES)
    answer.figures["cuMemAllocManaged"] = rows
    for row in rows:
        size = row["size"]
        if row["own"] is not None:
            answer.check(f"{size} B: own does not move", row["own"] == 0, row["own"])
            answer.check(
                f"{size} B: unattributed gains them",
                row["unattributed"] == pages(size),
                row["unattributed"],
            )
        answer.check(f"{size} B: free loses them", row["free"] == -pages(size), row["free"])
    last = rows[-1]
    answer.text = (
        f"of {last['size']} B touched by the device own gains {last['own']}, "
        f"unattributed {last['unattributed']}, free {last['free']}"
    )
    return answer
