"""The screen of ``memacct watch`` as data: bars, keys, frames of any size, events."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memacct import _core
from memacct.look.bar import Part, bar, shares
from memacct.look.events import Event, EventLog, ago, did
from memacct.look.frame import frame_lines, plain_lines
from memacct.look.frame_data import Frame
from memacct.look.keys import keys_in
from memacct.look.look_types import Gpu, Holder, Look
from memacct.look.parts import Keys, gpu_parts, room
from memacct.look.screen import Screen, press, rows_of
from memacct.look.styled import cells, cut, text_of, width, wrap

GIB = 1 << 30
MIB = 1 << 20


def holder(pid: int, gib: float | None, **others: Any) -> Holder:
    fields: dict[str, Any] = {"owner": "foreign", "start_ticks": pid, "name": "python"}
    size = None if gib is None else int(gib * GIB)
    return Holder(pid=pid, process_used_bytes=size, **(fields | others))


def gpu(*processes: Holder, label: str = "0", taken_ns: int = 0, **others: Any) -> Gpu:
    total, reserved = 80 * GIB, GIB
    held = sum(each.process_used_bytes or 0 for each in processes)
    fields: dict[str, Any] = {
        "uuid": f"GPU-{label}",
        "label": label,
        "nvml_index": 0,
        "parent_uuid": None,
        "name": "NVIDIA H100 80GB HBM3",
        "source": "nvml_v2",
        "taken_ns": taken_ns,
        "span_ns": 1000,
        "consistent": True,
        "total_bytes": total,
        "free_bytes": total - held - reserved,
        "device_used_bytes": held,
        "reserved_bytes": reserved,
        "own_bytes": 0,
        "tree_bytes": 0,
        "foreign_bytes": held,
        "unattributed_bytes": 0,
        "processes": processes,
    }
    return Gpu(**(fields | others))


def look(*gpus: Gpu, **others: Any) -> Look:
    machine = _core.snapshot("counters", None, limits=True)
    fields: dict[str, Any] = {
        "taken_ns": max((each.taken_ns for each in gpus), default=0),
        "span_ns": 1000,
        "pid": None,
        "numbers": "ours",
        "gpus": gpus,
        "gpus_reason": "",
        "system": machine.system,
        "cgroup": machine.cgroup,
        "limits": machine.limits,
    }
    return Look(**(fields | others))


def frame(seen: Look, screen: Screen | None = None, events: Any = ()) -> Frame:
    keys = Keys()
    keys.update(seen)
    return Frame(
        look=seen,
        screen=screen or Screen(),
        keys=keys,
        events=events,
        interval_s=1.0,
        now_ns=seen.taken_ns,
        clock="12:00:00",
        cpu_ratio=0.004,
    )


# ---------------------------------------------------------------- bars


@given(st.lists(st.integers(0, 1 << 40), min_size=1, max_size=12), st.integers(0, 200))
def test_shares_fill_the_bar_and_nobody_vanishes(sizes: list[int], columns: int) -> None:
    found = shares(sizes, columns)
    present = sum(size > 0 for size in sizes)
    assert sum(found) == (columns if present else 0)
    assert all(count == 0 for size, count in zip(sizes, found, strict=True) if size == 0)
    if columns >= present:
        assert all(count for size, count in zip(sizes, found, strict=True) if size > 0)


@given(st.integers(1, 200), st.booleans())
def test_a_bar_is_as_wide_as_asked(columns: int, colour: bool) -> None:
    seen = gpu(holder(1, 30), holder(2, 0.01), holder(3, 20), unattributed_bytes=3 * GIB)
    keys = Keys()
    keys.update(look(seen))
    assert width(bar(gpu_parts(seen, keys), columns, colour=colour)) == columns


def test_without_colour_the_letters_tell() -> None:
    parts = [Part(30, "A", "p0"), Part(10, "B", "p1"), Part(40, "·", "free", hollow=True)]
    assert text_of(bar(parts, 8, colour=False)) == "AAAB····"
    told = Part(1, "A", "p0", "7.39")
    assert text_of(bar([told], 12, colour=False)) == "A 7.39 AAAAA"
    assert "".join(span.text for span in bar([told], 12, colour=True)) == " A 7.39     "


def test_a_bar_is_the_whole_device_even_if_terms_are_unknown() -> None:
    hidden = gpu(holder(1, None), foreign_bytes=None, unattributed_bytes=None, free_bytes=40 * GIB)
    keys = Keys()
    keys.update(look(hidden))
    sizes = {part.mark: part.size for part in gpu_parts(hidden, keys)}
    assert sizes["?"] == 39 * GIB
    assert sum(sizes.values()) == hidden.total_bytes


def test_colours_and_letters_stay_with_their_process() -> None:
    one, two, three = holder(1, 1), holder(2, 2), holder(3, 3)
    keys = Keys()
    keys.update(look(gpu(one, two)))
    before = keys.letter(two), keys.style(two)
    keys.update(look(gpu(two, three)))  # one has ended, its letter is free
    assert (keys.letter(two), keys.style(two)) == before
    assert keys.letter(three) == "A"
    again = holder(2, 2, start_ticks=99)  # the same number, another process
    keys.update(look(gpu(two, again)))
    assert keys.letter(again) != keys.letter(two)
    assert keys.style(two._replace(owner="own")) == "own"


# ---------------------------------------------------------------- text


@given(st.text(max_size=40), st.integers(0, 30))
def test_cut_never_is_too_wide(text: str, columns: int) -> None:
    text = "".join(c for c in text if c.isprintable())
    assert cells(cut(text, columns)) <= max(columns, 0)
    assert all(cells(each) <= max(columns, 1) for each in wrap(text, max(columns, 1)))


def test_wide_characters_take_two_columns() -> None:
    assert cells("训练.py") == 7
    assert cut("训练.py", 4) == "训…"


# ---------------------------------------------------------------- frames


def test_every_size_is_kept_to() -> None:
    many = [
        holder(pid, 1 + pid % 5, title=f"python train_{pid}.py 训练 --lr 0.1") for pid in range(40)
    ]
    gpus = [gpu(*many[i * 5 : i * 5 + 5], label=str(i)) for i in range(8)]
    log = EventLog()
    log.step(look(gpu(taken_ns=0)))
    events = log.step(look(gpu(*many[:5], taken_ns=10**9)))
    looks = (look(*gpus), look(gpus[0], pid=4), look(gpus=None, gpus_reason="no driver"))
    screens = (Screen(), Screen(helping=True), Screen(selected=("7", 39), message="m" * 300))
    for columns, rows, screen in itertools.product(
        (1, 7, 20, 59, 79, 80, 140), (1, 2, 3, 5, 9, 14, 24, 60), screens
    ):
        for seen in looks:
            lines = frame_lines(frame(seen, screen, events), columns, rows, colour=False)
            assert len(lines) == rows
            assert max(map(width, lines)) <= columns


def test_a_frame_at_80_columns() -> None:
    seen = look(gpu(holder(4711, 31.39, title="/usr/bin/python train.py"), holder(4712, 3.39)))
    lines = [text_of(each) for each in frame_lines(frame(seen), 80, 20, colour=False)]
    assert lines[0].endswith("12:00:00")
    assert "processes 34.78  free 44.22  of 80.00 GiB" in lines[1]
    assert lines[2].startswith("A 31.39 AAA")
    row = next(line for line in lines if " 4711 " in line)
    assert row.split()[:4] == ["A", "0", "4711", "31.39"]
    assert row.endswith("python train.py")
    assert lines[-1].endswith("1 s  self 0.4 % CPU")


def test_the_selected_row_is_always_in_sight() -> None:
    seen = look(gpu(*(holder(pid, 1) for pid in range(1, 61))))
    for pid in (1, 30, 60):
        lines = frame_lines(frame(seen, Screen(selected=("0", pid))), 80, 16, colour=False)
        (marked,) = [text_of(each) for each in lines if text_of(each).startswith("►")]
        assert f" {pid} " in marked


def test_names_cannot_draw_on_the_screen() -> None:
    evil = holder(1, 1, title="python \x1b[2Jboo\nx")
    lines = frame_lines(frame(look(gpu(evil))), 100, 20, colour=False)
    assert all(text_of(each).isprintable() for each in lines if each)


def test_more_gpus_than_lines_are_counted() -> None:
    seen = look(*(gpu(label=str(i)) for i in range(16)))
    text = "\n".join(text_of(each) for each in frame_lines(frame(seen), 80, 10, colour=False))
    shown = len(re.findall(r"(?m)^\d+ ", text))
    assert f"and {16 - shown} GPUs more" in text


def test_a_plain_frame_has_everything() -> None:
    seen = look(*(gpu(holder(100 + i, 1), label=str(i)) for i in range(16)))
    text = "\n".join(map(text_of, plain_lines(frame(seen), 100)))
    assert all(f"GPU {i} " in text and f" {100 + i} " in text for i in range(16))


def test_the_binding_limit_is_what_it_adds_up_to() -> None:
    found = room(look())
    assert found is not None
    terms = (found.held_bytes, found.reclaimable_bytes, found.free_bytes)
    assert None not in terms
    assert sum(term or 0 for term in terms) == found.limit_bytes


# ---------------------------------------------------------------- keys


def test_bytes_are_keys() -> None:
    assert keys_in(b"q\x1b[A\x1bOB\r\x1b") == ["q", "up", "down", "enter", "escape"]
    assert keys_in(b"\x1b[1;5A\x1b[15~\x00\xff") == []  # with no name here
    assert keys_in("ß?".encode()) == ["ß", "?"]


SEEN = look(gpu(holder(1, 1)))


@given(st.binary(max_size=40))
def test_any_bytes_are_harmless(data: bytes) -> None:
    for key in keys_in(data):
        press(Screen(), key, SEEN)


def test_keys_choose_and_pick() -> None:
    seen = look(gpu(holder(1, 10), holder(2, 20)), gpu(holder(3, 5), label="1"))
    screen = Screen()
    assert [each.pid for _, each in rows_of(seen, "gpu")] == [2, 1, 3]
    for key, selected in (("down", 2), ("down", 1), ("j", 3), ("down", 3), ("up", 1)):
        screen = press(screen, key, seen)
        assert screen.selected is not None
        assert screen.selected[1] == selected
    screen = press(screen, "enter", seen)
    assert screen.picked == 1
    assert press(screen, "enter", seen).picked is None
    assert press(screen, "escape", seen).picked is None
    assert press(Screen(), "up", seen).selected == ("1", 3)


def test_keys_sort_pause_help_and_quit() -> None:
    seen = look()
    screen, sorts = Screen(), []
    for _ in range(5):
        sorts.append(screen.sort)
        screen = press(screen, "s", seen)
    assert sorts == ["gpu", "rss", "pid", "name", "gpu"]
    assert press(press(Screen(), "p", seen), "p", seen) == Screen()
    helping = press(Screen(), "?", seen)
    assert helping.helping
    assert press(helping, "s", seen) == Screen()  # leaves the help, and does no more
    assert press(helping, "q", seen).quitting
    assert press(Screen(), "z", seen) == Screen()
    assert press(Screen(), "enter", seen).message == "no process to pick"


def test_nobody_can_be_picked_by_a_strangers_number() -> None:
    seen = look(gpu(holder(7, 1)), numbers="others")
    screen = press(press(Screen(), "down", seen), "enter", seen)
    assert screen.picked is None
    assert "numbers" in screen.message


# ---------------------------------------------------------------- events


def test_moves_are_told_in_words() -> None:
    log = EventLog()
    assert log.step(look(gpu(holder(4711, 5)))) == ()  # the first look: nobody moved
    (event,) = log.step(look(gpu(holder(4711, 5 - 1.9), taken_ns=10**9)))
    assert did(event.move) == "pid 4711 python released 1.90 GiB"
    assert ago(event.move.before_ns, 4 * 10**9 + 10**6) == "3 s ago"
    (came,) = log.step(look(gpu(holder(4711, 5 - 1.9), holder(8, 1), taken_ns=2 * 10**9)))
    assert did(came.move) == "pid 8 python came and took 1.00 GiB"
    ended = log.step(look(gpu(holder(8, 1), taken_ns=3 * 10**9)))
    assert [did(each.move) for each in ended] == ["pid 4711 python ended, released 3.10 GiB"]
    assert len(log.last) == 3
    assert event.to_dict()["change_bytes"] == int(3.1 * GIB) - 5 * GIB


def test_small_moves_are_added_up() -> None:
    log = EventLog()
    told: list[Event] = []
    for i, mib in enumerate((100, 100.4, 100.9, 101.1)):
        told += log.step(look(gpu(holder(1, mib / 1024), taken_ns=i)))
    (event,) = told
    assert MIB < event.move.change_bytes < 2 * MIB


def test_a_hidden_number_moves_nobody() -> None:
    log = EventLog()
    assert log.step(look(gpu(holder(1, 5)))) == ()
    assert log.step(look(gpu(holder(1, None), taken_ns=1))) == ()
    (event,) = log.step(look(gpu(holder(1, 6), taken_ns=2)))
    assert event.move.change_bytes == GIB


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.5, "0 s"), (99, "99 s"), (120, "2 min"), (7200, "2 h")]
)
def test_ages(seconds: float, said: str) -> None:
    assert ago(0, int(seconds * 1e9)) == f"{said} ago"
