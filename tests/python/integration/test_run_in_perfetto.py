"""A recording's trace in Perfetto's own trace processor: it loads, and says what the run says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from perfetto_processor import Processor
from recorded_run import CHILD, CHILD_NAME, NEIGHBOUR, PARENT, at, records, write_run

from memacct._units import GIB, MIB
from memacct.recording import Run, read_run
from memacct.report import perfetto_wire as wire
from memacct.report.run_account import account_of
from memacct.report.run_perfetto import perfetto_trace
from memacct.report.run_spans import Span

SPANS = (
    Span(PARENT, "load", 0, at(0.1), at(0.3), 5, None),
    Span(PARENT, "read", 1, at(0.1), at(0.2), None, 7),
    Span(PARENT, "serve", 0, at(0.3), None, None, None),
)
HOST = {
    "rss": "rss_bytes",
    "rss anon": "rss_anon_bytes",
    "rss file": "rss_file_bytes",
    "rss shmem": "rss_shmem_bytes",
    "swap": "swap_bytes",
}
ESCAPED_NAME = CHILD_NAME.encode("utf-8", "backslashreplace").decode()
#: A counter by the process, or by the track, that it is below.
Key = tuple[int | str, str]
Points = list[tuple[int, int | None]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return read_run(write_run(tmp_path_factory.mktemp("run") / "run.memacct"))


@pytest.fixture(scope="module")
def loaded(run: Run) -> Iterator[Processor]:
    with Processor(perfetto_trace(run, account_of(run).host_totals, SPANS)) as processor:
        yield processor


def counters(processor: Processor) -> dict[Key, Points]:
    rows = processor.query(
        "select coalesce(p.start_ts, above.name) as whose, t.name as name, c.ts as ts,"
        " c.value as value, t.unit as unit"
        " from counter c join counter_track t on c.track_id = t.id"
        " left join process_counter_track of on of.id = t.id left join process p using (upid)"
        # A counter_track does not tell what it is below; as a track it does.
        " join track self on self.id = t.id left join track above on above.id = self.parent_id"
        " order by c.id"
    )
    found: dict[Key, Points] = defaultdict(list)
    for whose, name, at_ns, value, unit in rows:
        assert unit == "bytes"
        found[whose, name].append((at_ns, value))
    return dict(found)


def sizes(points: tuple[tuple[float, int], ...]) -> Points:
    return [(at(seconds), gib * GIB) for seconds, gib in points]


def expected_counters(run: Run) -> dict[Key, Points]:
    """Every counter that there must be, from the run's own numbers."""
    totals = account_of(run).host_totals
    command = "recorded tree: python /x/serve.py --name '</script><b>'"
    found: dict[Key, Points] = {
        (command, "host, all processes"): list(zip(run.samples_ns, totals, strict=True))
    }
    for process in run.processes:
        for title, term in HOST.items():
            points = [(point.at_ns, getattr(point, term)) for point in process.points]
            ends = [] if process.ended_ns is None else [(process.ended_ns, 0)]
            found[process.first_ns, title] = points + ends
    (device,) = run.devices
    for term in ("own", "tree", "foreign", "unattributed", "reserved", "free"):
        values = [(point.at_ns, point.terms[f"{term}_bytes"]) for point in device.points]
        found["GPU 0 NVIDIA H100", f"GPU 0 {term}"] = values
    neighbour = ((0.1, 2), (0.2, 2), (0.3, 3), (0.4, 3))
    child = ((0.2, 5), (0.3, 6), (0.4, 0))
    found["GPU 0 NVIDIA H100", f"GPU 0 pid {NEIGHBOUR} other"] = sizes(neighbour)
    found[run.processes[1].first_ns, "GPU 0 held"] = sizes(child)
    return found


def found_wrong(processor: Processor) -> list[tuple[str, int]]:
    """What Perfetto counted while it read: errors, losses, and what it calls info, times aside.

    To it a counter of a track that is not described is of no more than info.
    """
    return processor.query(
        "select name, value from stats where value != 0 and name not like '%_duration_ns'"
    )


def test_perfetto_finds_nothing_wrong(loaded: Processor) -> None:
    assert found_wrong(loaded) == []
    bounds = loaded.query("select start_ts as first, end_ts as last from trace_bounds")
    assert bounds == [(at(0.0), at(0.45))]


def test_what_is_wrong_is_found(run: Run) -> None:
    whole = perfetto_trace(run, account_of(run).host_totals)
    lost = wire.packet(at(0.5), event=wire.counter(999, 1))
    with Processor(whole + lost) as processor:
        assert found_wrong(processor) == [("track_event_tokenizer_errors", 1)]
    torn = whole + b"\x0a\x02\xff\xff"  # a packet whose first field has no end
    with pytest.raises(AssertionError, match="the trace is probably corrupt"), Processor(torn):
        pass


def test_every_counter_reads_back_equal(run: Run, loaded: Processor) -> None:
    assert counters(loaded) == expected_counters(run)


def test_processes_are_perfettos_processes(loaded: Processor) -> None:
    rows = loaded.query("select pid, name, start_ts from process where pid > 0 order by upid")
    assert rows == [(PARENT, "python serve.py", at(0.0)), (CHILD, ESCAPED_NAME, at(0.2))]


def test_lives_and_spans_are_slices_that_nest(run: Run, loaded: Processor) -> None:
    rows = loaded.query(
        "select p.pid as pid, s.name as name, s.ts as ts, s.dur as dur, s.depth as depth"
        " from slice s join process_track t on s.track_id = t.id join process p using (upid)"
        " order by s.id"
    )
    lives = [row[2:] for row in rows if row[0] == CHILD]
    assert lives == [(at(0.2), at(0.4) - at(0.2), 0)]
    whole = ("python serve.py", at(0.0), run.last_ns - at(0.0), 0)
    assert [row[1:] for row in rows if row[0] == PARENT] == [
        whole,
        ("load", at(0.1), at(0.3) - at(0.1), 0),
        ("read", at(0.1), at(0.2) - at(0.1), 1),
        ("serve", at(0.3), run.last_ns - at(0.3), 0),
    ]


def test_what_is_noted_beside_a_slice_is_there(loaded: Processor) -> None:
    rows = loaded.query(
        "select s.name as name, a.key as key, a.display_value as value"
        " from slice s join args a using (arg_set_id) where a.key like 'debug.%' order by s.id, key"
    )
    notes = [row for row in rows if row[0] in {"load", "read"} or row[1] == "debug.title"]
    assert notes[0] == ("python serve.py", "debug.title", "python /x/serve.py --port 1")
    assert ("load", "debug.held", "5") in notes
    assert ("read", "debug.own device", "7") in notes


def test_a_neighbours_move_is_an_instant_on_its_gpu(loaded: Processor) -> None:
    rows = loaded.query(
        "select above.name as gpu, t.name as track, s.name as name, s.ts as ts, s.dur as dur"
        " from slice s join track t on s.track_id = t.id join track above on above.id = t.parent_id"
        " where s.dur = 0"
    )
    text = f"pid {NEIGHBOUR} other took 1.00 GiB"
    assert rows == [("GPU 0 NVIDIA H100", "GPU 0 neighbours", text, at(0.3) + 2000, 0)]


def test_a_number_used_twice_is_two_processes(tmp_path: Path) -> None:
    wanted = records()
    first = next(each for each in wanted if each.get("process") == 1)
    again = {**first, "process": 2, "start_ticks": 99, "name": "second", "at_ns": at(0.42)}
    sample = next(each for each in wanted if each["kind"] == "sample")
    row = [2, 7 * MIB, 6 * MIB, MIB, 0, 0, 9 * MIB, None, None]
    wanted[-1:-1] = [again, {**sample, "at_ns": at(0.42), "host": [row]}]
    run = read_run(write_run(tmp_path / "run.memacct", wanted))
    with Processor(perfetto_trace(run, account_of(run).host_totals)) as processor:
        assert found_wrong(processor) == []
        rows = processor.query("select name, start_ts from process where pid > 100 order by upid")
        assert rows == [(ESCAPED_NAME, at(0.2)), ("second", at(0.42))]
        assert counters(processor) == expected_counters(run)
