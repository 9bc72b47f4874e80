"""Entries, spans, threads and arguments of a timeline, within one process."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import mmap
import threading
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import memacct
from memacct import _timeline_baseline, _timeline_recording
from memacct._convert import from_dict
from memacct._core import HostMemory, host_terms_json, read_mappings, read_residency
from memacct._timeline_types import Baseline, BaselinePart, resident_change

if TYPE_CHECKING:
    from collections.abc import Iterator

    from memacct._core import Mappings


@pytest.fixture
def timeline() -> Iterator[memacct.Timeline]:
    with memacct.Timeline(breakdown=False) as made:
        yield made


def shape(timeline: memacct.Timeline) -> list[tuple[str, str, int]]:
    return [(entry.kind, entry.name, entry.depth) for entry in timeline.entries]


def test_spans_nest_and_say_what_they_are_in(timeline: memacct.Timeline) -> None:
    with memacct.span("outer"):
        memacct.checkpoint("a")
        with memacct.span("inner"):
            memacct.checkpoint("b")
        memacct.checkpoint("c")
    memacct.checkpoint("d")
    assert shape(timeline) == [
        ("baseline", "baseline", 0),
        ("span_begin", "outer", 0),
        ("checkpoint", "a", 1),
        ("span_begin", "inner", 1),
        ("checkpoint", "b", 2),
        ("span_end", "inner", 1),
        ("checkpoint", "c", 1),
        ("span_end", "outer", 0),
        ("checkpoint", "d", 0),
    ]
    entries = timeline.entries
    assert [entry.span_index for entry in entries] == [None, None, 1, 1, 3, 3, 1, 1, None]
    assert [entry.index for entry in entries] == list(range(9))
    outer = entries[7]
    assert outer.span_ns == entries[7].taken_ns - entries[1].taken_ns
    inside = sum(entry.delta.rss_bytes for entry in entries[2:8])
    assert outer.span_delta is not None
    assert outer.span_delta.rss_bytes == inside


def test_deltas_add_up_to_what_there_is_since_the_baseline(timeline: memacct.Timeline) -> None:
    kept = []
    for number in range(20):
        kept.append(bytearray(b"x" * 300_000))
        memacct.checkpoint(str(number))
    entries = timeline.entries
    total = entries[0].delta
    for entry in entries[1:]:
        total = total + entry.delta
        assert total == entry.since_baseline
        assert resident_change(entry.delta) == entry.delta.rss_bytes
    assert entries[0].host.rss_bytes + total.rss_bytes == entries[-1].host.rss_bytes


def test_an_exception_ends_its_spans_and_goes_on(timeline: memacct.Timeline) -> None:
    error = KeyError("weights")
    with pytest.raises(KeyError) as caught, memacct.span("outer"), memacct.span("inner"):
        raise error
    assert caught.value is error
    assert error.__context__ is None
    memacct.checkpoint("after")
    assert shape(timeline)[3:] == [
        ("span_end", "inner", 1),
        ("span_end", "outer", 0),
        ("checkpoint", "after", 0),
    ]
    assert [entry.error for entry in timeline.entries] == [None] * 3 + ["KeyError"] * 2 + [None]
    assert "} inner" in str(timeline)
    assert "KeyError" in str(timeline)


def test_garbage_is_collected_only_when_asked_for(timeline: memacct.Timeline) -> None:
    collections: list[str] = []

    def called(phase: str, info: dict[str, Any]) -> None:
        if phase == "start" and info["generation"] == 2:
            collections.append("full")

    gc.collect()
    gc.disable()  # what Python collects by itself is not ours
    gc.callbacks.append(called)
    try:
        memacct.checkpoint("plain")
        with memacct.span("plain"):
            pass
        assert collections == []
        cycle: list[Any] = []
        cycle.append(cycle)
        del cycle
        memacct.checkpoint("asked", collect_garbage=True)
        assert len(collections) == 1
        with memacct.span("asked", collect_garbage=True):
            pass
        assert len(collections) == 3
    finally:
        gc.callbacks.remove(called)
        gc.enable()
    counts = [entry.garbage_count for entry in timeline.entries]
    assert counts[:4] == [None] * 4
    assert counts[4] is not None
    assert counts[4] >= 1
    assert counts[5:] == [0, 0]


@pytest.mark.parametrize("in_file", [True, False], ids=["file", "memory"])
def test_threads_nest_their_own_spans_and_lose_nothing(tmp_path: Path, *, in_file: bool) -> None:
    threads_count, rounds_count = 8, 100
    path = tmp_path / "threads.jsonl" if in_file else None
    native_ids: list[int] = []

    def work() -> None:
        native_ids.append(threading.get_native_id())
        start.wait()
        for number in range(rounds_count):
            with timeline.span(f"span {number}"):
                timeline.checkpoint(f"inside {number}")

    start = threading.Barrier(threads_count)
    with memacct.Timeline(path, breakdown=False) as timeline:
        # Each in an empty context: what a thread inherits depends on the Python.
        threads = [
            threading.Thread(target=contextvars.Context().run, args=(work,))
            for _ in range(threads_count)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    record = timeline.record()
    if in_file:
        merged = memacct.read_timeline(tmp_path / "threads.jsonl")
        assert merged.records == (record,)
        assert merged.torn_count == 0
    assert [entry.taken_ns for entry in record.entries] == sorted(
        entry.taken_ns for entry in record.entries
    )
    assert record.lost_count == 0
    assert len(record.entries) == 2 + 3 * threads_count * rounds_count
    assert sorted(entry.index for entry in record.entries) == list(range(len(record.entries)))
    of_thread = Counter(entry.thread_id for entry in record.entries)
    begins = {entry.index: entry for entry in record.entries if entry.kind == "span_begin"}
    for native_id in native_ids:
        assert of_thread[native_id] >= 3 * rounds_count
    for entry in record.entries:
        if entry.name.startswith("inside"):
            assert entry.depth == 1
            assert entry.span_index is not None
            assert begins[entry.span_index].thread_id == entry.thread_id
            assert begins[entry.span_index].name.split()[1] == entry.name.split()[1]


def test_tasks_nest_their_own_spans(timeline: memacct.Timeline) -> None:
    async def work(name: str, mine: asyncio.Event, others: asyncio.Event) -> None:
        with memacct.span(name):
            mine.set()
            await others.wait()
            memacct.checkpoint(f"in {name}")

    async def both() -> None:
        a, b = asyncio.Event(), asyncio.Event()
        await asyncio.gather(work("a", a, b), work("b", b, a))

    asyncio.run(both())
    begins = {entry.name: entry.index for entry in timeline.entries if entry.kind == "span_begin"}
    for entry in timeline.entries:
        if entry.kind == "checkpoint":
            assert entry.depth == 1
            assert entry.span_index == begins[entry.name.removeprefix("in ")]


def test_a_task_that_outlives_its_span_is_not_in_it_any_more(timeline: memacct.Timeline) -> None:
    async def work(inside: asyncio.Event, goes_on: asyncio.Event) -> None:
        memacct.checkpoint("while it is open")
        inside.set()
        await goes_on.wait()
        memacct.checkpoint("after its end")
        with memacct.span("own"):
            await asyncio.to_thread(memacct.checkpoint, "in its own")

    async def both() -> None:
        inside, goes_on = asyncio.Event(), asyncio.Event()
        with memacct.span("outer"):
            with memacct.span("inner"):
                task = asyncio.create_task(work(inside, goes_on))
                await inside.wait()
            goes_on.set()
            await task

    asyncio.run(both())
    placed = {
        entry.name: (entry.depth, entry.span_index)
        for entry in timeline.entries
        if entry.kind in {"checkpoint", "span_begin"}
    }
    outer, inner, own = (
        next(entry.index for entry in timeline.entries if entry.name == name)
        for name in ("outer", "inner", "own")
    )
    assert placed["while it is open"] == (2, inner)
    assert placed["after its end"] == placed["own"] == (1, outer)
    assert placed["in its own"] == (2, own)


def test_a_span_is_entered_once(timeline: memacct.Timeline) -> None:
    span = memacct.span("once")
    with span, pytest.raises(ValueError, match="a span can be entered once"), span:
        pass
    with pytest.raises(ValueError, match="a span can be entered once"), span:
        pass
    memacct.checkpoint("after")
    assert shape(timeline)[1:] == [
        ("span_begin", "once", 0),
        ("span_end", "once", 0),
        ("checkpoint", "after", 0),
    ]


@pytest.mark.parametrize(("repeated_ns", "walks_count"), [(0, 1), (10**18, 3)])
def test_only_a_quick_walk_is_repeated(
    monkeypatch: pytest.MonkeyPatch, repeated_ns: int, walks_count: int
) -> None:
    kept: list[mmap.mmap] = []

    def walk_in_a_process_that_grows() -> Mappings | None:
        # Pages of its own: malloc might hand out again what earlier tests have touched.
        block = mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        block.write(b"x" * len(block))
        kept.append(block)
        return read_residency() or read_mappings()

    monkeypatch.setattr(_timeline_baseline, "read_residency", walk_in_a_process_that_grows)
    monkeypatch.setattr(_timeline_baseline, "_REPEATED_WALK_NS", repeated_ns)
    with memacct.Timeline() as timeline:
        baseline = timeline.baseline
    assert len(kept) == walks_count
    assert baseline is not None
    assert baseline.counter_lag_bytes is not None
    assert baseline.counter_lag_bytes < 0
    assert baseline.unexplained_bytes == 0


def test_the_timeline_started_last_is_the_current_one() -> None:
    with memacct.Timeline(breakdown=False) as outer:
        memacct.checkpoint("1")
        with memacct.span("around"), memacct.Timeline(breakdown=False) as inner:
            assert memacct.current_timeline() is inner
            memacct.checkpoint("2")
            outer.checkpoint("3")
        assert memacct.current_timeline() is outer
        memacct.checkpoint("4")
    assert [(name, depth) for _, name, depth in shape(outer)] == [
        ("baseline", 0),
        ("1", 0),
        ("around", 0),
        ("3", 1),
        ("around", 0),
        ("4", 0),
        ("end", 0),
    ]
    # The span around it is of the other timeline.
    assert [(name, depth) for _, name, depth in shape(inner)] == [
        ("baseline", 0),
        ("2", 0),
        ("end", 0),
    ]


def test_any_text_is_a_name(tmp_path: Path) -> None:
    names = [
        "",
        'quotes " and \\',
        "two\nlines\x00",
        "größer 🙂",
        "%d %s {}",
        "\udcff",
        "x" * 20_000,
    ]
    with memacct.Timeline(tmp_path / "names.jsonl", name='ro\n"le') as timeline:
        for name in names:
            timeline.checkpoint(name)
    (record,) = memacct.read_timeline(tmp_path / "names.jsonl").records
    assert [entry.name for entry in record.entries[1:-1]] == names
    assert record.name == 'ro\n"le'
    assert record == timeline.record()
    # A table has a row for each, in characters that any stream takes.
    text = str(record)
    text.encode()
    title, *rows = text.split("\n")
    assert "\x00" not in text
    assert 'ro\\n"le' in title
    first = next(number for number, row in enumerate(rows) if row.startswith("two"))
    assert rows[first].startswith("two\\nlines\\x00 ")
    assert rows[first + 1].startswith("größer 🙂 ")
    assert rows[first + 3].startswith("\\udcff ")
    assert len(title) < 200


def test_a_timeline_is_started_once_and_takes_entries_until_it_is_stopped() -> None:
    timeline = memacct.Timeline(breakdown=False)
    with pytest.raises(ValueError, match="has not been started"):
        timeline.checkpoint("early")
    with pytest.raises(ValueError, match="has not been started"):
        _ = timeline.entries
    with pytest.raises(ValueError, match="has not been started"):
        timeline.stop()
    timeline.start()
    with pytest.raises(ValueError, match="can be started once"):
        timeline.start()
    with timeline.span("outlives its timeline"):
        first = timeline.stop()
    assert first is not None
    assert first == timeline.stop() == timeline.identity()
    assert [entry.kind for entry in timeline.entries] == ["baseline", "span_begin", "end"]
    with pytest.raises(ValueError, match="has been stopped"):
        timeline.checkpoint("late")
    with pytest.raises(ValueError, match="has been stopped"), timeline.span("late"):
        pass


@pytest.mark.parametrize("host", ["counters", "rollup"])
def test_other_tiers_leave_out_or_add_terms(host: Any) -> None:
    with memacct.Timeline(host=host, breakdown=False) as timeline:
        timeline.checkpoint("one")
        last = timeline.entries[-1].host
    assert last.tier == host
    assert (last.rss_anon_bytes is None) == (host == "counters")
    assert (last.pss_bytes is None) == (host == "counters")
    assert timeline.identity().holds


def test_no_such_tier() -> None:
    with pytest.raises(ValueError, match="host must be one of counters, breakdown, rollup"):
        memacct.Timeline(host="smaps")  # type: ignore[arg-type]


def test_memory_keeps_a_bounded_number_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_timeline_recording, "KEPT_LINES", 10)
    path = tmp_path / "long.jsonl"
    with memacct.Timeline(path, breakdown=False) as timeline:
        for number in range(30):
            timeline.checkpoint(str(number))
        assert len(timeline.entries) == 10
        assert timeline.identity().holds is None
    # The end is kept, and the check says that it does not know all entries.
    kept = timeline.record()
    assert [entry.name for entry in kept.entries] == ["baseline", *map(str, range(9)), "end"]
    assert (kept.unkept_count, kept.lost_count) == (21, 0)
    made = timeline.stop()
    assert made is not None
    assert made.difference_bytes == 0
    assert made.holds is None
    assert "21 entries were not kept in memory" in str(timeline)
    assert "equal; 21 entries were not kept, nor checked" in str(timeline)
    (record,) = memacct.read_timeline(path).records
    assert len(record.entries) == 32
    check = record.identity()
    assert check is not None
    assert check.holds is True


def test_a_clock_that_is_set_back_reorders_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with memacct.Timeline(breakdown=False) as timeline:
        timeline.checkpoint("before")
        monkeypatch.setattr(time, "time_ns", lambda: 0)
        timeline.checkpoint("after")
    walls = [entry.wall_ns for entry in timeline.entries]
    assert walls == sorted(walls)
    assert walls[0] > 10**18


def test_a_line_has_every_term_of_a_reading_that_is_known() -> None:
    left_out = {"tier", "pid", "shared_bytes", "peak_vms_bytes"}
    names = HostMemory._fields
    values: dict[str, Any] = {name: 2**64 - number for number, name in enumerate(names, start=1)}
    values |= {"tier": "rollup", "pid": 7}
    plain = memacct.snapshot(devices=None).to_dict()
    full = from_dict(memacct.Snapshot, {**plain, "host": values})
    terms = json.loads("{" + host_terms_json(full) + "}")
    assert terms == {name: values[name] for name in names if name not in left_out}
    counters = from_dict(
        memacct.Snapshot,
        {**plain, "host": {"tier": "counters", "pid": 7, "vms_bytes": 2, "rss_bytes": 0}},
    )
    assert host_terms_json(counters) == '"vms_bytes":2,"rss_bytes":0'


def test_parts_are_named_by_package() -> None:
    def part(path: str | None, kind: str = "library", rss_bytes: int = 4096) -> BaselinePart:
        return BaselinePart(kind=kind, path=path, rss_bytes=rss_bytes, mappings_count=1)

    site = "/usr/lib/python3/site-packages"
    parts = (
        part(f"{site}/numpy/core/_multiarray.so"),
        part(f"{site}/numpy/linalg/_umath.so"),
        part(f"{site}/top_level.so"),
        part("/usr/lib/libc.so.6", rss_bytes=8192),
        part("/opt/dist-packages/torch/lib/libtorch_cpu.so", rss_bytes=1 << 20),
        part(None, kind="anon", rss_bytes=12288),
    )
    assert [each.package for each in parts] == ["numpy", "numpy", None, None, "torch", None]
    baseline = Baseline(
        rss_bytes=sum(each.rss_bytes for each in parts), parts=parts, counter_lag_bytes=0
    )
    assert list(baseline.by_package().items()) == [
        ("torch", 1 << 20),
        ("numpy", 8192),
        ("/usr/lib/libc.so.6", 8192),
        (f"{site}/top_level.so", 4096),
    ]
    assert baseline.by_kind() == {"library": (1 << 20) + 20480, "anon": 12288}


def test_notes_are_told_with_their_entry() -> None:
    with memacct.Timeline(breakdown=False) as timeline:
        with timeline.span("load") as span:
            span.notes["file_bytes"] = 3
        timeline.checkpoint("at", notes={"of": "x", "ratio": 0.5})
        timeline.checkpoint("none")
        entries = {entry.name: entry for entry in timeline.entries if entry.kind != "span_begin"}
    assert entries["load"].notes == {"file_bytes": 3}
    assert entries["at"].notes == {"of": "x", "ratio": 0.5}
    assert entries["none"].notes is None


def test_a_note_that_is_neither_number_nor_text_is_an_error() -> None:
    with memacct.Timeline(breakdown=False) as timeline:
        with pytest.raises(TypeError, match="'list' is \\[1\\]"):
            timeline.checkpoint("x", notes={"list": [1]})  # type: ignore[dict-item]
        with pytest.raises(TypeError, match="must be a number or a text"):
            timeline.check("x", notes={"none": None})  # type: ignore[dict-item]


def test_a_check_in_between_tells_whether_the_sum_holds_and_the_timeline_goes_on() -> None:
    with memacct.Timeline(breakdown=False) as timeline:
        assert timeline.record().identity() is None
        timeline.check("so far", notes={"n": 1})
        found = timeline.record().identity()
        assert found is not None
        assert found.holds
        timeline.checkpoint("after")
    assert [entry.kind for entry in timeline.entries][-3:] == ["checkpoint", "checkpoint", "end"]
    last = timeline.record().identity()
    assert last is not None
    assert last.now_bytes == timeline.entries[-1].now_bytes


def test_a_stopped_timeline_takes_no_check() -> None:
    with memacct.Timeline(breakdown=False) as timeline:
        pass
    with pytest.raises(ValueError, match="stopped"):
        timeline.check("late")


def test_a_baseline_that_is_read_once_sums_up_too() -> None:
    with memacct.Timeline(breakdown="once") as timeline:
        baseline = timeline.baseline
    assert baseline is not None
    assert baseline.parts
    assert baseline.unexplained_bytes == 0
