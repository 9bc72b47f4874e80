"""A recording as a Perfetto trace: counter tracks, slices and instants."""

from __future__ import annotations

from typing import TYPE_CHECKING

from memacct._printable import printable
from memacct._units import format_bytes
from memacct.report import perfetto_wire as wire
from memacct.report.run_account import called, equation_of
from memacct.report.run_words import command_text, event_text

if TYPE_CHECKING:
    from memacct._trace_events import ForeignEvent
    from memacct.recording import Run, RunDevice, RunProcess
    from memacct.report.run_spans import Span

_HOST_COUNTERS = {
    "rss": "rss_bytes",
    "pss": "pss_bytes",
    "rss anon": "rss_anon_bytes",
    "rss file": "rss_file_bytes",
    "rss shmem": "rss_shmem_bytes",
    "swap": "swap_bytes",
}
_FIRST_PROCESS_ORDER = 100
_HOST_SCALE = "host memory"


def perfetto_trace(run: Run, totals: tuple[int, ...], spans: tuple[Span, ...] = ()) -> bytes:
    """Returns the trace: timestamps are CLOCK_MONOTONIC, counters bytes.

    A counter holds until its next value. What is not known sets none; what a process held
    goes to 0 with its end.
    """
    return _Trace(run).build(totals, spans)


class _Trace:
    """The trace while it is put together."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.parts: list[bytes] = []
        self.timed: list[tuple[int, int, bytes]] = []
        self._last_uuid = 0

    def build(self, totals: tuple[int, ...], spans: tuple[Span, ...]) -> bytes:
        tree = self._track("recorded tree: " + command_text(self.run), order=1)
        sums = self._counter("host, all processes", tree)
        for at_ns, total in zip(self.run.samples_ns, totals, strict=True):
            self._count(at_ns, sums, total)
        for device in self.run.devices:
            self._add_device(device)
        tracks = {}
        for process in self.run.processes:
            tracks[process.number] = self._add_process(process)
        self._add_held(tracks)
        self._add_spans(spans, tracks)
        # A stable order at equal times: what ends comes before what begins, as it was added.
        self.timed.sort(key=lambda each: each[:2])
        return b"".join([*self.parts, *(body for _, _, body in self.timed)])

    def _uuid(self) -> int:
        self._last_uuid += 1
        return self._last_uuid

    def _track(self, name: str, parent: int | None = None, order: int = 0) -> int:
        uuid = self._uuid()
        self.parts.append(wire.packet(None, track=wire.plain_track(uuid, name, parent, order)))
        return uuid

    def _counter(self, name: str, parent: int, order: int = 0, scale: str = "") -> int:
        uuid = self._uuid()
        track = wire.counter_track(uuid, name, parent, order, scale)
        self.parts.append(wire.packet(None, track=track))
        return uuid

    def _at(self, at_ns: int, body: bytes, order: int = 1) -> None:
        self.timed.append((at_ns, order, wire.packet(at_ns, event=body)))

    def _count(self, at_ns: int, track: int, value: int | None) -> None:
        if value is not None:
            self._at(at_ns, wire.counter(track, value))

    def _slice(
        self,
        track: int,
        name: str,
        begin_ns: int,
        end_ns: int | None,
        notes: dict[str, str] | None = None,
    ) -> None:
        self._at(begin_ns, wire.event(wire.SLICE_BEGIN, track, name, notes), 2)
        last_ns = max(begin_ns, self.run.last_ns) if end_ns is None else end_ns
        self._at(last_ns, wire.event(wire.SLICE_END, track), 0 if last_ns > begin_ns else 3)

    def _add_process(self, process: RunProcess) -> int:
        uuid, name = self._uuid(), printable(called(process))
        order = _FIRST_PROCESS_ORDER + process.number
        track = wire.process_track(uuid, process.pid, name, process.first_ns, order)
        self.parts.append(wire.packet(None, track=track))
        life = self._track("alive", uuid)
        notes = {"title": printable(process.title), "parent pid": str(process.parent_pid)}
        self._slice(life, name, process.first_ns, process.ended_ns, notes)
        for order, (title, term) in enumerate(_HOST_COUNTERS.items(), 1):
            values = [(point.at_ns, getattr(point, term)) for point in process.points]
            if all(value is None for _, value in values):
                continue
            counter = self._counter(title, uuid, order, _HOST_SCALE)
            for at_ns, value in values:
                self._count(at_ns, counter, value)
            if process.ended_ns is not None:
                self._count(process.ended_ns, counter, 0)
        return uuid

    def _add_device(self, device: RunDevice) -> None:
        title = f"GPU {device.number if device.index is None else device.index}"
        group = self._track(f"{title} {printable(device.name)}", order=10 + device.number)
        counters: dict[str, int] = {}
        for point in device.points:
            values = {
                **equation_of(point),
                **{
                    f"pid {each.pid} {printable(self.run.names.get(each.pid, ''))}".rstrip(): (
                        each.process_used_bytes
                    )
                    for each in point.processes
                    if each.number is None
                },
            }
            for name in counters.keys() - values.keys():
                self._count(point.at_ns, counters[name], 0)  # it has left the device
            for name, value in values.items():
                if name not in counters:
                    # What is free would leave of the scale no more than a line for the rest.
                    scale = "" if name == "free" else f"{title} held"
                    order = len(counters) + 1
                    counters[name] = self._counter(f"{title} {name}", group, order, scale)
                self._count(point.at_ns, counters[name], value)
        if device.events:
            self._add_events(self._track(f"{title} neighbours", group), device.events)

    def _add_events(self, track: int, events: tuple[ForeignEvent, ...]) -> None:
        for event in events:
            text = event_text(event, format_bytes(abs(event.change_bytes)))
            notes = {"change_bytes": str(event.change_bytes), "after_ns": str(event.after_ns)}
            self._at(event.before_ns, wire.event(wire.INSTANT, track, text, notes))

    def _add_held(self, tracks: dict[int, int]) -> None:
        """Adds what each recorded process held on each GPU, below the process."""
        for device in self.run.devices:
            title = f"GPU {device.number if device.index is None else device.index} held"
            counters: dict[int, int] = {}
            for point in device.points:
                held = {
                    each.number: each.process_used_bytes
                    for each in point.processes
                    if each.number is not None
                }
                for number in counters.keys() - held.keys():
                    self._count(point.at_ns, counters[number], 0)
                for number, value in held.items():
                    if number not in counters:
                        counters[number] = self._counter(title, tracks[number], 50)
                    self._count(point.at_ns, counters[number], value)

    def _add_spans(self, spans: tuple[Span, ...], tracks: dict[int, int]) -> None:
        # A pid that was used twice: the one that was there when the span began.
        lanes: dict[int, int] = {}
        for span in spans:
            found = [
                process
                for process in self.run.processes
                if process.pid == span.pid
                and (process.ended_ns is None or process.ended_ns >= span.begin_ns)
            ]
            parent = tracks[found[0].number] if found else None
            if span.pid not in lanes:
                lanes[span.pid] = self._track(f"spans of {span.pid}", parent, 40)
            changes = {"held": span.held_change_bytes, "own device": span.device_change_bytes}
            notes = {key: str(value) for key, value in changes.items() if value is not None}
            self._slice(lanes[span.pid], span.name, span.begin_ns, span.end_ns, notes)
