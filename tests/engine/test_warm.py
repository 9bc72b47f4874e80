"""Engines forked from a warm process are the real ones, and stand still where they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from memacct._units import GIB, MIB
from memacct.demo.scenarios import ALONE, EAGER
from memacct.demo.warm import Pause, last_marks

if TYPE_CHECKING:
    from conftest import Starts

    from memacct.demo.warm import WarmEngines

pytestmark = pytest.mark.engine


def test_a_warm_engine_allocates_what_a_fresh_one_does(starts: Starts, warm: WarmEngines) -> None:
    fresh = starts.isolated(ALONE)
    for _ in range(2):  # the second finds imported what the first has imported
        forked = warm.start(EAGER, "warm").finish()
        assert forked.served, forked.error
        assert forked.kv_cache_bytes == fresh.kv_cache_bytes


def test_its_memory_is_given_back_when_it_ends(warm: WarmEngines) -> None:
    start = warm.start(EAGER, "warm-stays", stay=True)
    assert start.wait() == "result"
    (held,) = warm.machine.gpu.status().devices[0].processes
    assert held.pid == start.pid
    assert held.process_used_bytes > 15 * GIB
    assert start.finish().served
    assert warm.machine.gpu.status().devices[0].processes == ()


def test_it_stands_still_before_the_call_that_is_named(warm: WarmEngines) -> None:
    pauses = (Pause(kind="memory", call=0), Pause(kind="readings", call=1))
    start = warm.start(EAGER, "warm-pauses", pauses=pauses)
    held_bytes = []
    for number in range(len(pauses)):
        assert start.wait() == f"pause {number}"
        device = warm.machine.gpu.status().devices[0]
        held_bytes.append(device.process_used_bytes(start.pid))
        start.go()
    # At first there is at most a context; then the weights are there, the KV cache is not.
    assert held_bytes[0] < 512 * MIB < held_bytes[1] < 2 * GIB
    result = start.finish()
    assert result.served, result.error
    at = last_marks(result)
    assert at["load_model begins"].calls["readings"] == 1
    assert at["profile_run begins"].calls["readings"] > 1
    assert at["load_model begins"].calls["memory"] < at["load_model ends"].calls["memory"]
    assert at["load_model begins"].at_ns < at["load_model ends"].at_ns


def test_one_that_is_killed_is_said_to_have_failed(warm: WarmEngines) -> None:
    start = warm.start(EAGER, "warm-killed", pauses=(Pause(kind="readings", call=1),))
    assert start.wait() == "pause 0"
    start.kill()
    result = start.finish()
    assert result.outcome == "failed"
    assert result.kv_cache_bytes is None
    assert warm.machine.gpu.status().devices[0].processes == ()
