"""The plugin's own time: blocks add up, nested ones count once, an open one counts so far."""

from __future__ import annotations

import gc
import os
import time

import pytest

from memacct.accounting import budget
from memacct.integrations.vllm._own_time import OwnTime

SPIN_NS = 2_000_000


def compute(duration_ns: int = SPIN_NS) -> None:
    """Computes until this thread has used that much of a processor."""
    end_ns = time.thread_time_ns() + duration_ns
    while time.thread_time_ns() < end_ns:
        pass


def test_blocks_add_up_and_what_is_between_them_does_not() -> None:
    own = OwnTime()
    with own:
        compute()
    first = own.spent()
    compute()
    assert own.spent() == first
    with own:
        compute()
    assert first.cpu_ns >= SPIN_NS
    assert own.spent().cpu_ns >= first.cpu_ns + SPIN_NS
    assert own.spent().wall_ns >= own.spent().cpu_ns // 2


def test_nested_blocks_count_once() -> None:
    own = OwnTime()
    before_ns = time.thread_time_ns()
    with own, own, own:
        compute()
    assert SPIN_NS <= own.spent().cpu_ns <= time.thread_time_ns() - before_ns


def test_an_open_block_counts_so_far() -> None:
    own = OwnTime()
    with own:
        compute()
        so_far = own.spent()
        assert so_far.cpu_ns >= SPIN_NS
        compute()
    assert own.spent().cpu_ns >= so_far.cpu_ns + SPIN_NS


def test_a_pause_is_outside_of_the_blocks_that_are_open() -> None:
    own = OwnTime()
    with own, own:
        collects: list[bool] = []

        def look(seconds: float) -> float:
            collects.append(gc.isenabled())
            return seconds

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(budget, "wall_pause", look)
            assert own.pause(3.0) == 3.0
        before = own.spent()
        assert own.pause(0.05) >= 0.05
        assert own.spent().wall_ns - before.wall_ns < 50_000_000
        assert not gc.isenabled()
        compute()
    assert collects == [True]
    assert gc.isenabled()
    assert own.spent().cpu_ns >= SPIN_NS
    assert own.pause(0.0) >= 0.0


def test_a_collection_that_is_due_is_not_the_plugins_own() -> None:
    own = OwnTime()
    seen: list[str] = []

    def burn(phase: str, info: dict[str, int]) -> None:
        del info
        seen.append(phase)
        if phase == "start":
            compute()

    before = gc.get_threshold()
    gc.callbacks.append(burn)
    gc.set_threshold(1, 1, 1)  # every allocation of a container is to begin one
    try:
        with own:
            pass
    finally:
        gc.set_threshold(*before)
        gc.callbacks.remove(burn)
    assert "start" in seen
    assert own.spent().cpu_ns < SPIN_NS


def test_a_forked_child_begins_anew() -> None:
    own = OwnTime()
    with own:
        compute()
    child = os.fork()
    if child == 0:
        with own:
            pass
        os._exit(0 if own.spent().cpu_ns < SPIN_NS else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert own.spent().cpu_ns >= SPIN_NS


def test_no_collection_begins_inside_and_all_is_as_before_after() -> None:
    own = OwnTime()
    with own, own:
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with own:
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
