"""Host memory of a dry run: samples less the pages behind simulated device memory."""

from __future__ import annotations

from typing import Any

import pytest

from memacct._units import MIB
from memacct.dry_run.host import HostSample, host_of

BEGIN_S, LOADED_S, STARTED_S = 10.0, 12.0, 20.0
WORKER: dict[str, Any] = {
    "pid": 1,
    "moments": {
        "begin": {"at_s": BEGIN_S},
        "loaded": {"at_s": LOADED_S, "device_pages_bytes": 800 * MIB},
        "started": {"at_s": STARTED_S, "device_pages_bytes": 400 * MIB},
    },
}


def held_mib(at_s: float, sampled_mib: int, worker: dict[str, Any] = WORKER) -> float:
    sample = HostSample(at_s=at_s, held_bytes=sampled_mib * MIB)
    host = host_of([sample], {"main": {"server": True}, "worker-0": worker}, (), None)
    assert host is not None
    return host.held.bytes / MIB


@pytest.mark.parametrize(
    ("at_s", "held"),
    [
        (BEGIN_S - 1, 1000),  # no device yet
        (BEGIN_S, 1000),
        (11.0, 600),  # half of the loading: half of its pages
        (LOADED_S, 200),
        (16.0, 400),
        (STARTED_S, 600),
        (STARTED_S + 5, 600),
    ],
)
def test_pages_of_the_device_grow_evenly_between_two_readings(at_s: float, held: float) -> None:
    assert held_mib(at_s, 1000) == held


def test_where_no_pages_were_told_none_are_taken_out() -> None:
    worker = {"pid": 1, "moments": {"begin": {"at_s": BEGIN_S}}}
    assert held_mib(LOADED_S, 1000, worker) == 1000
    assert held_mib(LOADED_S, 1000, {"pid": 1, "moments": {}}) == 1000


def test_the_highest_of_what_is_left_counts() -> None:
    samples = [
        HostSample(at_s=LOADED_S, held_bytes=1500 * MIB),  # 700 without the device
        HostSample(at_s=STARTED_S, held_bytes=1200 * MIB),  # 800
    ]
    host = host_of(samples, {"main": {"server": True}, "worker-0": WORKER}, (), None)
    assert host is not None
    assert host.held.low_bytes == host.held.bytes == 800 * MIB
