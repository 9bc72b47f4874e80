"""Records a command, or a process that runs, with its whole tree, until it ends."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from memacct import _core
from memacct._errors import ConfigError
from memacct._foreground import signals_held
from memacct.recording._command import HELD, Command, Ended, next_signal
from memacct.recording._header import header
from memacct.recording._pace import Pace
from memacct.recording._sources import Sources
from memacct.recording._writer import RunWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.recording._sources import DeviceKeys, HostTier

#: Samples a second, at most: what is looked at is other processes' memory, through procfs.
MOST_HZ = 50.0
_PEAKS_COUNT = 50
_NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Reason = Literal["exited", "signalled", "gone", "duration", "interrupted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What to record, and how.

    Attributes:
        output: the file.
        command: the program and its arguments; or
        pid: a process that runs.
        hz: samples a second, up to 50.
        budget_ratio: the part of one CPU's time, at most, that samples may take; where the tree
            or the driver is slow to read, samples are left out.
        host: "counters" (statm), "breakdown" (status) or "rollup" (pss; walks page tables).
        devices: "all", "none", or some of them.
        duration_s: ends the recording of a `pid`; None: its end does.
        timeline: whether the command's processes keep timelines, in ``<output>.timeline``.

    Raises:
        ConfigError: a value is not allowed; the message names it and what is.
    """

    output: Path
    command: tuple[str, ...] = ()
    pid: int | None = None
    hz: float = 10.0
    budget_ratio: float = 0.02
    host: HostTier = "breakdown"
    devices: DeviceKeys = "all"
    duration_s: float | None = None
    timeline: bool = False
    began_ns: int = field(default_factory=time.monotonic_ns)

    def __post_init__(self) -> None:
        if bool(self.command) == (self.pid is not None):
            raise ConfigError("name either a command (after --) or --pid, one of the two")
        if not (math.isfinite(self.hz) and 0 < self.hz <= MOST_HZ):
            raise ConfigError(f"hz={self.hz} must be above 0 and at most {MOST_HZ:.0f}")
        if not 0 < self.budget_ratio <= 1:
            raise ConfigError(f"budget={self.budget_ratio} must be above 0 and at most 1")
        if self.host not in ("counters", "breakdown", "rollup"):
            allowed = "'counters', 'breakdown' or 'rollup'"
            raise ConfigError(f"host={self.host!r} must be {allowed}")
        if self.duration_s is not None and (self.command or not self.duration_s > 0):
            raise ConfigError("duration is a time above 0, and goes with --pid")
        if self.timeline and self.pid is not None:
            raise ConfigError("a process that runs cannot be told to keep a timeline: no --pid")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a recording ended: its last record, and what became of the file.

    Attributes:
        exit_code: as the command's; 0 of a process that was only watched.
        lost: why the file lacks what came later; None: it has all.
    """

    exit_code: int
    record: dict[str, Any]
    lost: str | None


def record(settings: Settings) -> Ending:
    """Records until the command, the process or the duration ends.

    Raises:
        CommandError: the command could not be started.
        ConfigError: the file is there, and is no recording; or there is no such process.
        SourceReadError: the file cannot be made.
    """
    if settings.pid is not None and _is_gone(settings.pid):
        raise ConfigError(f"there is no process {settings.pid}")
    path = settings.output.absolute()
    timeline = path.with_name(path.name + ".timeline") if settings.timeline else None
    with RunWriter(path) as writer:
        try:
            return _Recording(settings, writer, timeline).run()
        except BaseException:
            if writer.written_bytes == 0 or not path.stat().st_size:
                path.unlink(missing_ok=True)
            raise


def _is_gone(pid: int) -> bool:
    (root, *_) = _core.snapshot_tree(pid, host="counters").processes
    return root.state in ("gone", "zombie")


class _Recording:
    """One recording, from its first record to its last."""

    def __init__(self, settings: Settings, writer: RunWriter, timeline: Path | None) -> None:
        self.settings = settings
        self.writer = writer
        self.timeline = timeline
        self.samples_count = 0
        self.command: Command | None = None

    def run(self) -> Ending:
        with signals_held(HELD) as mask:
            first = self._header()
            self.sources = Sources(
                host=self.settings.host,
                devices=self.settings.devices,
                cgroup_pid=self.settings.pid or 0,
            )
            # GPUs by name may be wrong; "all" cannot, and the driver is slow to start.
            asked = self.settings.devices not in ("all", "none")
            opened = self.sources.open_devices() if asked else None
            self.root = self.settings.pid or 0
            if self.settings.command:
                self.command = Command(self.settings.command, self._environ(), mask)
                self.root = first["pid"] = self.command.pid
            self.started_ns = time.monotonic_ns()
            self.cpu_before_ns = time.process_time_ns()
            self.writer.write([first])
            self._first_sample(opened)
            return self._end(*self._watch())

    def _header(self) -> dict[str, Any]:
        if self.timeline is not None:
            self.timeline.mkdir(exist_ok=True)
        return header(
            command=self.settings.command or None,
            pid=self.settings.pid,
            hz=self.settings.hz,
            budget_ratio=self.settings.budget_ratio,
            host=self.settings.host,
            timeline_dir=None if self.timeline is None else self.timeline.name,
        )

    def _environ(self) -> dict[str, str]:
        if self.timeline is None:
            return dict(os.environ)
        kept = {"MEMACCT_TIMELINE_DIR": str(self.timeline), "MEMACCT_TIMELINE": "1"}
        return {**os.environ, **kept}

    def _first_sample(self, opened: list[dict[str, Any]] | None) -> None:
        if self.command is None:
            _core.add_tree_root(self.root)
        if opened is not None:
            self.writer.write(opened)
        self.writer.write(self.sources.sample(self.root))
        if opened is None:
            self.writer.write(self.sources.open_devices())
        self.samples_count += 1

    def _watch(self) -> tuple[Reason, Ended | None]:
        self.pace = Pace(self.settings.hz, self.settings.budget_ratio, self.started_ns)
        counted_ns, last_ns = self.cpu_before_ns, None
        if self.settings.duration_s is not None:
            last_ns = self.started_ns + round(self.settings.duration_s * 1e9)
        while True:
            # All that was done since the last time: reading, writing, this loop.
            paid_ns, counted_ns = counted_ns, time.process_time_ns()
            cost_ns = counted_ns - paid_ns + self.sources.waited_ns
            due_ns = self.pace.next_due(time.monotonic_ns(), cost_ns)
            ending = self._wait(due_ns if last_ns is None else min(due_ns, last_ns))
            if ending is not None:
                return ending
            if last_ns is not None and time.monotonic_ns() >= last_ns:
                return "duration", None
            self.writer.write(self.sources.sample(self.root))
            self.samples_count += 1
            if self.command is None and self.sources.root_ended:
                return "gone", None

    def _wait(self, due_ns: int) -> tuple[Reason, Ended | None] | None:
        """Waits, and passes signals on; returns how it ended, if it did."""
        while (told := next_signal(due_ns)) is not None:
            if self.command is None:
                number = told.si_signo
                if number in _ENDING and signal.getsignal(number) is not signal.SIG_IGN:
                    return "interrupted", None
            elif told.si_signo != signal.SIGCHLD:
                self.command.pass_on(told)
            elif (ended := self.command.poll()) is not None:
                return "exited" if ended.signal is None else "signalled", ended
        return None

    def _end(self, reason: Reason, ended: Ended | None) -> Ending:
        record = self._end_record(reason, ended, time.monotonic_ns())
        self.writer.write([record])
        error = self.writer.error
        return Ending(
            exit_code=0 if ended is None else ended.exit_code,
            record=record,
            lost=None if error is None else f"{self.writer.path}: {error.strerror}",
        )

    def _end_record(self, reason: Reason, ended: Ended | None, now_ns: int) -> dict[str, Any]:
        own_cpu_ns, elapsed_ns = time.process_time_ns(), now_ns - self.started_ns
        sampling_cpu_ns = own_cpu_ns - self.cpu_before_ns
        changes, cpu_ns = self.sources.changes, None if ended is None else ended.cpu_ns
        before_ns = self.started_ns - min(self._own_start_ns(), self.settings.began_ns)
        return {
            "kind": "end",
            "at_ns": now_ns,
            "reason": reason,
            "exit_code": None if ended is None else ended.exit_code,
            "signal": None if ended is None else ended.signal,
            "elapsed_ns": elapsed_ns,
            "samples_count": self.samples_count,
            "skipped_count": self.pace.skipped_count,
            "missed_count": self.pace.missed_count,
            "errors_count": self.sources.errors_count,
            "own_cpu_ns": own_cpu_ns,
            "sampling_cpu_ns": sampling_cpu_ns,
            "sampling_cpu_ratio": sampling_cpu_ns / max(1, elapsed_ns),
            "command_cpu_ns": cpu_ns,
            "sampling_to_command_cpu_ratio": sampling_cpu_ns / cpu_ns if cpu_ns else None,
            "own_wall_before_ns": before_ns,
            "own_wall_ratio": before_ns / max(1, elapsed_ns),
            "largest_rss_bytes": None if ended is None else ended.largest_rss_bytes,
            "processes_count": len(changes.labels),
            "host_peak_bytes": None if changes.host_peak is None else changes.host_peak[0],
            "host_peak_at_ns": None if changes.host_peak is None else changes.host_peak[1],
            "device_peaks": [
                {"device": number, "tree_bytes": size, "at_ns": at_ns}
                for number, (size, at_ns) in sorted(changes.device_peaks.items())
            ],
            "peaks": self._peaks(),
        }

    def _peaks(self) -> list[dict[str, Any]]:
        """The processes with the largest peaks: as sampled, and as the kernel kept them."""
        changes = self.sources.changes
        largest: Sequence[int] = sorted(
            changes.peaks,
            key=lambda n: (-changes.exact_peaks.get(n, changes.peaks[n][0]), n),
        )
        return [
            {
                "process": number,
                "pid": changes.labels[number][0],
                "name": changes.labels[number][1],
                "sampled_peak_rss_bytes": changes.peaks[number][0],
                "sampled_at_ns": changes.peaks[number][1],
                "peak_rss_bytes": changes.exact_peaks.get(number),
            }
            for number in largest[:_PEAKS_COUNT]
        ]

    def _own_start_ns(self) -> int:
        """CLOCK_MONOTONIC of this process's start, to a tick."""
        (me, *_) = _core.snapshot_tree(os.getpid(), host="counters").processes
        since_boot_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return time.monotonic_ns() - (since_boot_ns - me.start_ticks * _NS_PER_TICK)
