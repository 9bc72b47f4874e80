"""The file of a recording: whatever it is cut off at, what was whole before is there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memacct import SourceFormatError
from memacct.recording import read_run
from memacct.recording._frames import frame, parse_frames
from memacct.recording._pace import Pace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

RECORDS = st.lists(
    st.dictionaries(
        st.text(max_size=8), st.none() | st.integers() | st.text() | st.lists(st.integers())
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(RECORDS, st.data())
def test_a_cut_keeps_what_was_whole(records: list[dict[str, Any]], data: st.DataObject) -> None:
    lines = [frame(record) for record in records]
    whole = b"".join(lines)
    cut = data.draw(st.integers(0, len(whole)))
    kept, taken_bytes = parse_frames(whole[:cut])
    ends = [sum(map(len, lines[: count + 1])) for count in range(len(lines))]
    assert kept == records[: sum(end <= cut for end in ends)]
    assert taken_bytes == max([end for end in ends if end <= cut], default=0)


@settings(max_examples=40)
@given(RECORDS.filter(bool), st.data())
def test_a_damaged_byte_ends_it_there(records: list[dict[str, Any]], data: st.DataObject) -> None:
    lines = [frame(record) for record in records]
    whole = bytearray(b"".join(lines))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    ends = [sum(map(len, lines[: count + 1])) for count in range(len(lines))]
    assert parse_frames(bytes(whole))[0] == records[: sum(end <= at for end in ends)]


@given(st.binary(max_size=200))
def test_anything_else_is_no_recording(data: bytes) -> None:
    assert parse_frames(data)[0] == []


def test_what_is_no_recording_is_said_to_be_none(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for data in (
        b"",
        b"text\n",
        frame({"kind": "sample"}),
        frame({"kind": "run", "schema_version": 9}),
    ):
        file.write_bytes(data)
        with pytest.raises(SourceFormatError, match="no recording|schema 9"):
            read_run(file)


@given(
    hz=st.floats(0.1, 50),
    ratio=st.floats(0.001, 1),
    costs=st.lists(st.integers(0, 200_000_000), min_size=1, max_size=60),
)
def test_samples_keep_to_the_budget_and_to_the_grid(
    hz: float, ratio: float, costs: list[int]
) -> None:
    pace, now_ns, spent_ns = Pace(hz, ratio, 0), 0, 0
    for cost_ns in costs:
        now_ns += cost_ns  # a sample lasts as long as it costs
        spent_ns += cost_ns
        due_ns = pace.next_due(now_ns, cost_ns)
        assert due_ns >= now_ns
        assert due_ns % pace.period_ns == 0
        now_ns = due_ns
        # What was saved, and what has been earned since the start.
        assert spent_ns <= 20_000_000 + ratio * now_ns + 1_000_000
    served = len(costs) + pace.missed_count + pace.skipped_count
    assert now_ns == served * pace.period_ns


@pytest.fixture(scope="module")
def whole_run() -> Callable[[int], bytes]:
    header = {"kind": "run", "schema_version": 1, "clock": {"monotonic_ns": 0, "wall_ns": 0}}
    process = {"kind": "process", "at_ns": 1, "process": 0, "pid": 7, "start_ticks": 1}
    process |= {"parent_pid": 1, "depth": 0, "name": "a", "title": "a", "role": None, "rank": None}
    samples = [
        {"kind": "sample", "at_ns": n, "host": [[0, n, n, 0, 0, 0, n, None, None]], "ended": []}
        for n in range(1, 6)
    ]
    return lambda count: b"".join(map(frame, [header, process, *samples][:count]))


@settings(max_examples=30)
@given(count=st.integers(1, 7), torn=st.binary(max_size=40))
def test_what_is_read_of_a_run_is_a_beginning_of_it(
    whole_run: Callable[[int], bytes],
    tmp_path_factory: pytest.TempPathFactory,
    count: int,
    torn: bytes,
) -> None:
    file = tmp_path_factory.mktemp("run") / "run"
    file.write_bytes(whole_run(count) + torn)
    run = read_run(file)
    assert (run.state, run.torn_bytes, run.end) == ("died", len(torn), None)
    assert run.samples_ns == tuple(range(1, max(1, count - 1)))
    points = [point.rss_bytes for process in run.processes for point in process.points]
    assert points == list(run.samples_ns)
