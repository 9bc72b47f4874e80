"""(5) Under which number does a process in a pid namespace of its own see itself?"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from device_process import DeviceProcess, context

from memacct import _core
from memacct._units import MIB

from .answer import Answer, change
from .machine import initial_pid_namespace
from .nvml import Nvml

WAYS = (("-pf", "--mount-proc"), ("-rpf", "--mount-proc"), ("-pf",), ("-rpf",))
HELD_BYTES = 66 * MIB
INSIDE = """
from questions.nvml import Nvml
result = [os.getpid(), list(Nvml().processes().items())]
"""


def unshare_prefix() -> tuple[list[str] | None, str]:
    """Returns a command that runs another in a pid namespace, or None and why there is none."""
    tool = shutil.which("unshare")
    if tool is None:
        return None, "there is no program unshare"
    refused = ""
    for way in WAYS:
        done = subprocess.run([tool, *way, "true"], check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return [tool, *way], ""
        refused = refused or done.stderr.strip()
    return None, f"no right to make a pid namespace ({refused})"


def ask(short: bool) -> Answer:
    answer = Answer()
    nvml = Nvml()
    context()
    answer.figures["here"] = _here(nvml)
    driver = nvml.text("nvmlSystemGetDriverVersion") or ""
    prefix, reason = unshare_prefix()
    era = answer.figures["here"]["era"]
    answer.text = f"here: {era}"
    if answer.figures["here"]["initial_namespace"]:
        answer.check("in the first namespace the own pid has its bytes", era == OWN, era)
    else:
        answer.check("here, as the driver's version lets expect", era == expected_era(driver), era)
    if prefix is None:
        answer.skip("a child in a namespace of its own", reason)
        return answer
    answer.figures["prefix"] = prefix[1:]
    child = _child(nvml, prefix)
    answer.figures["child"] = child
    answer.text += f"; in a namespace of its own: {child['era']}"
    answer.check(
        f"driver {driver}: {expected_era(driver)}",
        child["era"] == expected_era(driver),
        child["era"],
    )
    _judge(answer, child)
    return answer


OWN, ZERO, HOST = "own pid with its bytes", "own pid with 0 bytes", "pids of another namespace"


def era_of(pid: int, rows: dict[int, int | None]) -> str:
    """Returns in words how a list tells of a process that holds memory."""
    if pid not in rows:
        return HOST if rows else "an empty list"
    if rows[pid] is None:
        return "own pid without bytes (N/A)"
    return OWN if rows[pid] else ZERO


def expected_era(driver: str) -> str:
    """Returns what the open kernel modules' sources let expect in a pid namespace."""
    version = tuple(int(part) for part in re.findall(r"\d+", driver)[:2])
    if version < (535, 113):
        return HOST
    return ZERO if version < (565, 0) else OWN


def _here(nvml: Nvml) -> dict[str, Any]:
    status = Path("/proc/self/status").read_text()
    chain = re.search(r"^NSpid:\s+(.*)$", status, re.MULTILINE)
    rows = nvml.processes()
    passive = _core.read_device(0).attribution.to_dict()
    return {
        "pid": os.getpid(),
        "nspid": chain[1].split() if chain else None,
        "initial_namespace": initial_pid_namespace(),
        "era": era_of(os.getpid(), rows),
        "rows": list(rows.items()),
        "passive": passive,
        "active": _core.identify(0).to_dict(),
    }


def _child(nvml: Nvml, prefix: list[str]) -> dict[str, Any]:
    before = nvml.processes()
    with DeviceProcess(None, prefix=prefix) as inner:
        inner.run("context()")
        begin = nvml.processes()
        passive = inner.read()
        inner.run(f"allocate({HELD_BYTES})")
        pid, rows = inner.run(INSIDE)
        moved = inner.read()
        active = inner.run("result = attempt(_core.identify, 0)")
        identified = inner.run("result = _core.driver_diagnosis()['process']['identified_pid']")
        found = inner.read()
        inner.run("release()")
        last = inner.read()
        outside = {pid: size for pid, size in begin.items() if pid not in before}
    return {
        "pid_inside": pid,
        "rows_inside": rows,
        "rows_outside": list(outside.items()),
        "era": era_of(pid, dict(rows)),
        "sees_others": len(rows) > 1,
        "passive": passive["attribution"],
        "passive_own": passive["own_bytes"],
        "passive_gain": change(moved["own_bytes"], passive["own_bytes"]),
        "active": active,
        "identified_pid": identified,
        "active_own": found["own_bytes"],
        "active_loss": change(last["own_bytes"], found["own_bytes"]),
    }


def _judge(answer: Answer, child: dict[str, Any]) -> None:
    """Whatever the era, memacct's number is unknown or right."""
    gain, loss = child["passive_gain"], child["active_loss"]
    answer.check(
        "unasked, own is unknown or moves as the child does", gain in (None, HELD_BYTES), gain
    )
    answer.check("after identify() too", loss in (None, -HELD_BYTES), loss)
    if child["era"] in (OWN, HOST):
        answer.check(
            "identify() finds the record", child["active_own"] is not None, child["active"]
        )
