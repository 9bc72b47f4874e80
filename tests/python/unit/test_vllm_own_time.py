"""The plugin's own time: blocks add up, nested ones count once, an open one counts so far."""

from __future__ import annotations

import time

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
