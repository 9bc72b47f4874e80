"""The typed form of faults and the text that the libraries read."""

from __future__ import annotations

import pytest

from memacct.sim import CallFault, Faults
from memacct.sim._faults import missing_symbols


def test_no_faults_are_no_text() -> None:
    assert Faults().text() == ""


def test_all_forms() -> None:
    faults = Faults(
        calls=[
            CallFault(function="nvmlInit_v2", error=9),
            CallFault(function="nvml*", latency_us=100, after_count=2, for_count=3),
            CallFault(function="cudaMemGetInfo", charge_bytes="-2MiB", charge_pid=7, device=1),
        ],
        pids="host",
        pid_bytes={"self": None, 12: 0},
        list_bytes={"graphics": None, "mps": 4},
        record_bytes={3: 32},
        missing=["nvmlB", "cuA"],
    )
    assert faults.text() == (
        "nvmlInit_v2: error=9; nvml*: after=2 for=3 latency_us=100; "
        "cudaMemGetInfo: charge=-2097152 pid=7 device=1; "
        "pids: host; bytes: self=na 12=0; lists: graphics=na mps=4; "
        "records: v3=32; missing: nvmlB cuA"
    )
    assert missing_symbols(faults.text()) == ("cuA", "nvmlB")


@pytest.mark.parametrize("name", ["", "malloc", "nvml Init", "*", "nvmlInit;pids"])
def test_a_bad_name_is_named(name: str) -> None:
    with pytest.raises(ValueError, match="function="):
        CallFault(function=name)


def test_bad_worlds_are_named() -> None:
    with pytest.raises(ValueError, match="pids='guest'"):
        Faults(pids="guest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="20"):
        Faults(record_bytes={3: 20})
