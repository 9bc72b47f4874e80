"""(4) Do the lists' sum, the reserve and the rest add up, and do the sources agree?"""

from __future__ import annotations

from typing import Any

from device_process import DeviceProcess, context

from memacct import _core
from memacct._units import MIB

from .answer import Answer, change
from .cuda import ALLOCATE
from .nvml import MEMORY_V2_TAG, Nvml

TERMS = ("free", "reserved", "own", "tree", "foreign", "unattributed")
OURS_BYTES = 1024 * MIB
THEIRS_BYTES = 512 * MIB


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    answer.figures["idle"] = {"v1": nvml.memory_v1(), "v2": nvml.memory_v2()}
    context()
    _core.identify(0)
    ALLOCATE["cuMemAlloc"](OURS_BYTES)
    answer.figures["one_process"] = _sums(nvml)
    with DeviceProcess(None) as other:
        other.run(f"context(); allocate({THEIRS_BYTES})")
        answer.figures["two_processes"] = _sums(nvml)
        _arithmetic(answer, nvml)
        _tags(answer, nvml)
        _reading(answer)
    _text(answer)
    return answer


def _sums(nvml: Nvml) -> dict[str, Any]:
    v2, listed = nvml.memory_v2(), nvml.processes()
    known = [size for size in listed.values() if size is not None]
    return {
        "v2": v2,
        "listed_count": len(listed),
        "listed_without_bytes_count": len(listed) - len(known),
        "listed_sum": sum(known),
        "used_minus_listed": change(v2.get("used"), sum(known)),
    }


def _arithmetic(answer: Answer, nvml: Nvml) -> None:
    v1, v2 = nvml.memory_v1(), nvml.memory_v2()
    answer.figures.update(v1=v1, v2=v2)
    whole = v1["used"] + v1["free"]
    answer.check("v1: total = used + free", v1["total"] == whole, v1["total"] - whole)
    if v2["code"] != 0:
        answer.skip("the arithmetic of version 2", f"error {v2['code']}")
        return
    rest = v2["total"] - v2["free"] - v2["reserved"] - v2["used"]
    answer.check("v2: total = free + reserved + used", rest == 0, rest)
    rest = v1["used"] - v2["used"] - v2["reserved"]
    answer.check("used of v1 = used + reserved of v2", rest == 0, rest)
    answer.check(
        "both tell the same total and free",
        (v1["total"], v1["free"]) == (v2["total"], v2["free"]),
        [v1["total"] - v2["total"], v1["free"] - v2["free"]],
    )
    read = _core._interpret_memory(
        **{key: v2[key] for key in ("total", "reserved", "free", "used")}
    )
    answer.check("memacct understands it", read == (v2["used"], v2["reserved"]), list(read))
    over = answer.figures["two_processes"]["used_minus_listed"]
    answer.check("the list's sum is at most used", over >= 0, over)


def _tags(answer: Answer, nvml: Nvml) -> None:
    """What a wrong version tag is answered with: `version = 2`, as nvml.h once said."""
    codes = {"size and 2": nvml.memory_v2(MEMORY_V2_TAG)["code"], "2": nvml.memory_v2(2)["code"]}
    answer.figures["codes_by_version_tag"] = codes
    answer.check(
        "only the tag with the size is taken", codes["size and 2"] == 0 != codes["2"], codes
    )


def _reading(answer: Answer) -> None:
    reading = _core.read_device(0, with_cuda=True)
    row = {term: getattr(reading, f"{term}_bytes") for term in TERMS}
    answer.figures["memacct"] = {"total": reading.total_bytes, **row, "source": reading.source}
    answer.figures["attribution"] = reading.attribution.to_dict()
    answer.figures["cuda_minus_nvml"] = {
        "total": change(reading.cuda_total_bytes, reading.total_bytes),
        "free": change(reading.cuda_free_bytes, reading.free_bytes),
    }
    answer.check("the reading is consistent while nobody moves", reading.consistent, None)
    found = answer.figures["cuda_minus_nvml"]["free"]
    answer.check("cuMemGetInfo's free is NVML's", found == 0, found)
    if None in row.values():
        unknown = [term for term, size in row.items() if size is None]
        answer.skip("the device equation", f"unknown here: {', '.join(unknown)}")
        return
    rest = reading.total_bytes - sum(row.values())
    answer.check("the device equation holds to the byte", rest == 0, rest)
    answer.check("nobody's memory is not negative", row["unattributed"] >= 0, row["unattributed"])


def _text(answer: Answer) -> None:
    idle, two = answer.figures["idle"]["v2"], answer.figures["two_processes"]
    cuda = answer.figures["cuda_minus_nvml"]
    answer.text = (
        f"of {two['v2'].get('used')} B in use {two['used_minus_listed']} B are in no listed number "
        f"({idle.get('used')} B when nobody was there); reserved {idle.get('reserved')} B; "
        f"cuMemGetInfo's total less NVML's: {cuda['total']} B"
    )
