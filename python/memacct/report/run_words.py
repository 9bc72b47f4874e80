"""Sentences about a recording that every form of its report says alike."""

from __future__ import annotations

import shlex
import signal
import time
from typing import TYPE_CHECKING

from memacct._printable import printable

if TYPE_CHECKING:
    from memacct._trace_events import ForeignEvent
    from memacct.recording import Run

_KIND_WORDS = {
    "appear": "appeared with",
    "grow": "took",
    "shrink": "released",
    "exit": "left, which released",
    "reclassified": "changed sides:",
}
_NS_PER_S = 1e9
_MINUTE_S, _HOUR_S = 60, 3600


def seconds(run: Run, at_ns: int) -> float:
    """Returns a moment as seconds since the command's start."""
    return (at_ns - run.origin_ns) / _NS_PER_S


def duration(span_s: float) -> str:
    """Returns a time for people."""
    if span_s >= _HOUR_S:
        return f"{int(span_s // _HOUR_S)} h {int(span_s % _HOUR_S // _MINUTE_S):02d} min"
    if span_s >= _MINUTE_S:
        return f"{int(span_s // _MINUTE_S)} min {int(span_s % _MINUTE_S):02d} s"
    return f"{span_s:.2f} s"


def counted(number: int, one: str, many: str) -> str:
    """Returns a number with the word for so many."""
    return f"{number} {one if number == 1 else many}"


def command_text(run: Run) -> str:
    """Returns what was recorded, as one would type it."""
    if run.header["command"] is None:
        return f"pid {run.header['pid']}"
    return printable(shlex.join(run.header["command"]))


def ending_text(run: Run) -> str:
    """Returns how it ended."""
    if run.end is None:
        if run.state == "running":
            return "it is still being recorded"
        return "the recording stopped short (its recorder was killed); this is what it had written"
    reason, number = run.end["reason"], run.end["signal"]
    if reason == "signalled":
        return f"ended by {_signal_name(number)} (exit status {run.end['exit_code']})"
    if reason == "exited":
        return f"exited with {run.end['exit_code']}"
    words = {"gone": "the process ended", "duration": "the asked time was over"}
    return words.get(reason, "the recording was interrupted")


def cost_text(run: Run) -> str | None:
    """Returns what the recording itself took; None: it has not ended by itself."""
    end = run.end
    if end is None:
        return None
    text = (
        f"sampling took {end['sampling_cpu_ns'] / _NS_PER_S:.2f} s of CPU, "
        f"{end['sampling_cpu_ratio']:.1%} of one; starting up {_start_text(run)} before the command"
    )
    if end["skipped_count"]:
        left_out = counted(end["skipped_count"], "sample", "samples")
        text += f"; {left_out} left out to keep to the budget"
    return text


def machine_text(run: Run) -> str:
    """Returns where it was recorded, when and by what."""
    header = run.header
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(header["clock"]["wall_ns"] / 1e9))
    driver = run.driver.get("driver_version")
    parts = [
        printable(header["hostname"]),
        f"Linux {header['kernel']}",
        f"{header['cpu_count']} CPUs",
        *([f"driver {driver}"] if driver else []),
        f"memacct {header['memacct_version']}",
        when,
    ]
    return ", ".join(parts)


def event_text(event: ForeignEvent, size: str) -> str:
    """Returns a neighbour's move: ``size`` is the change without its sign."""
    who = f"pid {event.pid} {printable(event.name) or '(not visible here)'}"
    return f"{who} {_KIND_WORDS[event.kind]} {size}"


def _start_text(run: Run) -> str:
    assert run.end is not None  # noqa: S101 (its caller has looked)
    return f"{run.end['own_wall_before_ns'] / _NS_PER_S:.2f} s"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
