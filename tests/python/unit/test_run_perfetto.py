"""The Perfetto trace, read back by Perfetto's own definitions of its format."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackDescriptor, TrackEvent
from recorded_run import CHILD, PARENT, at, write_run

from memacct._units import GIB, MIB
from memacct.recording import Run, read_run
from memacct.report.run_account import account_of
from memacct.report.run_perfetto import perfetto_trace
from memacct.report.run_spans import Span

if TYPE_CHECKING:
    from pathlib import Path

Counters = dict[tuple[str, str], list[tuple[int, int]]]


class ReadBack:
    """A trace as its tracks and what happened on each."""

    def __init__(self, data: bytes) -> None:
        self.trace = Trace.FromString(data)
        self.tracks: dict[int, TrackDescriptor] = {}
        self.events: dict[int, list[tuple[int, TrackEvent]]] = defaultdict(list)
        for packet in self.trace.packet:
            assert packet.trusted_packet_sequence_id
            if packet.HasField("track_descriptor"):
                assert packet.track_descriptor.uuid not in self.tracks
                self.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
            else:
                # Every track is described before what happens on it.
                assert packet.track_event.track_uuid in self.tracks
                event = (packet.timestamp, packet.track_event)
                self.events[packet.track_event.track_uuid].append(event)

    def group(self, track: TrackDescriptor) -> str:
        parent = self.tracks.get(track.parent_uuid)
        if parent is None:
            return ""
        return str(parent.process.pid or parent.name)

    def counters(self) -> Counters:
        return {
            (self.group(track), track.name): [
                (at_ns, event.counter_value) for at_ns, event in self.events[uuid]
            ]
            for uuid, track in self.tracks.items()
            if track.HasField("counter")
        }

    def slices(self) -> dict[str, list[tuple[str, int, int]]]:
        """What is open is closed by the next end, as in Perfetto."""
        found: dict[str, list[tuple[str, int, int]]] = defaultdict(list)
        for uuid, events in self.events.items():
            open_slices: list[Any] = []
            for at_ns, event in events:
                if event.type == TrackEvent.TYPE_SLICE_BEGIN:
                    open_slices.append((event.name, at_ns))
                elif event.type == TrackEvent.TYPE_SLICE_END:
                    name, begin_ns = open_slices.pop()
                    found[self.group(self.tracks[uuid])].append((name, begin_ns, at_ns))
            assert not open_slices
        return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return read_run(write_run(tmp_path / "run.memacct"))


def read_back(run: Run, *spans: Span) -> ReadBack:
    return ReadBack(perfetto_trace(run, account_of(run).host_totals, spans))


def test_every_counter_reads_back_equal(run: Run) -> None:
    counters = read_back(run).counters()
    for process in run.processes:
        for title, term in (("rss", "rss_bytes"), ("rss anon", "rss_anon_bytes")):
            expected = [(point.at_ns, getattr(point, term)) for point in process.points]
            ends = [] if process.ended_ns is None else [(process.ended_ns, 0)]
            assert counters[str(process.pid), title] == expected + ends
    (device,) = run.devices
    for name in ("own", "tree", "foreign", "unattributed", "reserved", "free"):
        expected = [(point.at_ns, point.terms[f"{name}_bytes"]) for point in device.points]
        assert counters["GPU 0 NVIDIA H100", f"GPU 0 {name}"] == expected
    assert counters["GPU 0 NVIDIA H100", "GPU 0 pid 900 other"] == [
        (at(0.1), 2 * GIB),
        (at(0.2), 2 * GIB),
        (at(0.3), 3 * GIB),
        (at(0.4), 3 * GIB),
    ]
    held = [(at(0.2), 5 * GIB), (at(0.3), 6 * GIB), (at(0.4), 0)]
    assert counters[str(CHILD), "GPU 0 held"] == held
    (total,) = (values for (_, name), values in counters.items() if name.startswith("host"))
    assert total == list(zip(run.samples_ns, account_of(run).host_totals, strict=True))
    assert max(value for _, value in total) == 550 * MIB
    # pss was not read: there is no counter that would say 0.
    assert not [name for _, name in counters if name == "pss"]


def test_slices_are_processes_and_spans_and_nest(run: Run) -> None:
    outer = Span(PARENT, "load", 0, at(0.1), at(0.3), 5, None)
    inner = Span(PARENT, "read", 1, at(0.1), at(0.2), None, None)
    last = Span(PARENT, "serve", 0, at(0.3), None, None, None)
    slices = read_back(run, outer, inner, last).slices()
    assert slices[str(CHILD)][0][1:] == (at(0.2), at(0.4))
    assert set(slices[str(PARENT)]) == {
        ("python serve.py", at(0.0), run.last_ns),
        ("load", at(0.1), at(0.3)),
        ("read", at(0.1), at(0.2)),
        ("serve", at(0.3), run.last_ns),
    }


def test_a_neighbours_move_is_an_instant(run: Run) -> None:
    found = read_back(run)
    instants = [
        (found.tracks[uuid].name, at_ns, event.name)
        for uuid, events in found.events.items()
        for at_ns, event in events
        if event.type == TrackEvent.TYPE_INSTANT
    ]
    text = "pid 900 other took 1.00 GiB"
    assert instants == [("GPU 0 neighbours", at(0.3) + 2000, text)]


def test_time_goes_forward(run: Run) -> None:
    times = [p.timestamp for p in read_back(run).trace.packet if p.HasField("track_event")]
    assert times == sorted(times)


def test_what_holds_a_gpu_is_drawn_to_one_scale_and_what_is_free_to_its_own(run: Run) -> None:
    found = read_back(run)
    scales: dict[str, set[str]] = defaultdict(set)
    for track in found.tracks.values():
        if track.HasField("counter"):
            name = "free" if track.name == "GPU 0 free" else found.group(track)
            scales[name].add(track.counter.y_axis_share_key)
    assert scales["GPU 0 NVIDIA H100"] == {"GPU 0 held"}
    assert scales["free"] == {""}
    assert scales[str(PARENT)] == {"host memory"}
    assert scales[str(CHILD)] == {"host memory", ""}  # and what it holds on the GPU
