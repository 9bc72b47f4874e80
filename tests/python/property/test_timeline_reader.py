"""A timeline's file that ends anywhere, or holds anything, is read as far as it goes."""

from __future__ import annotations

import contextlib
import functools
import json
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

import memacct
from memacct._timeline_read import parse_timelines

TEXT = st.text(max_size=20)


@functools.cache
def written() -> bytes:
    """Two timelines in one file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "two.jsonl"
        second = memacct.Timeline(path, breakdown=False)
        with memacct.Timeline(path, name="first") as first, second:
            first.checkpoint("one")
            second.checkpoint("größer")
            with first.span("span"):
                second.checkpoint("three")
        # Of the baseline's parts some will do.
        lines = [json.loads(line) for line in path.read_bytes().split(b"\n") if line]
    for line in lines:
        if "parts" in line:
            line["parts"] = line["parts"][:3]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def test_a_prefix_of_a_file_holds_a_prefix_of_its_entries() -> None:
    text = written()
    whole, torn = parse_timelines(text.split(b"\n"), "whole")
    assert torn == 0
    assert [len(record.entries) for record in whole] == [5, 4]
    ends = {end for end in range(len(text)) if text[end : end + 1] == b"\n"}
    for end in range(len(text) + 1):
        found, torn = parse_timelines(text[:end].split(b"\n"), "prefix")
        for record, complete in zip(found, whole, strict=False):
            assert record.entries == complete.entries[: len(record.entries)]
            assert record.id == complete.id
        lines = text[:end].split(b"\n")
        is_whole_line = end in ends or not lines[-1]
        assert torn == (0 if is_whole_line else 1)
        complete_count = len([line for line in lines if line]) - torn
        assert complete_count == sum(1 + len(record.entries) for record in found)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_timeline_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(memacct.SourceFormatError):
        parse_timelines(data.split(b"\n"), "any")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
FIELDS = (
    "id", "kind", "schema", "pid", "index", "taken_ns", "host", "span", "parts", "devices", "name",
    "started_ns", "started_wall_ns", "depth", "thread",
)  # fmt: skip


@given(st.integers(0, 10), st.sampled_from(FIELDS), JSON)
def test_any_value_in_a_line_is_read_or_a_format_error(
    number: int, field: str, value: object
) -> None:
    lines = written().split(b"\n")
    line = json.loads(lines[number])
    line[field] = value
    lines[number] = json.dumps(line).encode()
    try:
        records, _ = parse_timelines(lines, "changed")
    except memacct.SourceFormatError:
        return
    for record in records:
        str(record)
