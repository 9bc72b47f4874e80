"""The pure rules behind a device reading."""

from __future__ import annotations

import random
import struct
from itertools import permutations
from typing import Any

import pytest

from memacct import _core
from memacct._units import GIB, MIB

ALL_ONES = 2**64 - 1
NO_INSTANCE = 0xFFFFFFFF
CAPACITY_BYTES = 64 * 32 + 64


def records(stride: int, rows: list[tuple[int, int]]) -> bytes:
    text = b""
    for pid, used in rows:
        whole = struct.pack("<IIQIIQ", pid, 0, used, NO_INSTANCE, NO_INSTANCE, 0)
        text += whole[:stride]
    return text


def probe(written: bytes, count: int, **limits: bool | int) -> int | None:
    return _core._probe_stride(
        written,
        capacity_bytes=CAPACITY_BYTES,
        count=count,
        total_bytes=limits.get("total_bytes"),
        mig_enabled=bool(limits.get("mig_enabled", False)),
    )


# ---------------------------------------------------------------- record size


@pytest.mark.parametrize("stride", [16, 24, 32])
@pytest.mark.parametrize("count", [1, 2, 3, 7, 64])
def test_record_size_is_what_was_written(stride: int, count: int) -> None:
    choose = random.Random(stride * count)  # noqa: S311 (a repeatable series)
    rows = [(choose.randrange(1, 4194304), choose.randrange(0, 80 * GIB)) for _ in range(count)]
    rows[-1] = (rows[-1][0], ALL_ONES)
    assert probe(records(stride, rows), count, total_bytes=80 * GIB) == stride


def test_an_empty_list_tells_no_size() -> None:
    assert probe(b"", 0) is None


@pytest.mark.parametrize("stride", [16, 24, 32])
def test_a_driver_that_clears_the_whole_buffer(stride: int) -> None:
    rows = [(100 + i, i * MIB) for i in range(1, 5)]
    written = records(stride, rows).ljust(CAPACITY_BYTES, b"\0")
    assert probe(written, len(rows), total_bytes=GIB) == stride


@pytest.mark.parametrize("stride", [16, 24, 32])
def test_one_record_is_read_whatever_its_size(stride: int) -> None:
    """Its pid and its bytes lie at the same place in all sizes; the rest is not looked at."""
    written = records(stride, [(100, MIB)]).ljust(CAPACITY_BYTES, b"\0")
    for mig_enabled in (False, True):
        size = probe(written, 1, total_bytes=GIB, mig_enabled=mig_enabled)
        assert size in (16, 24, 32)
    assert probe(written, 1, total_bytes=MIB - 1) is None


def test_what_no_size_explains_is_not_understood() -> None:
    assert probe(b"\0" * 96, 4) is None
    assert probe(b"\xff" * 96, 4) is None


def test_a_process_in_two_lists_counts_once() -> None:
    rows = [(9, 5), (7, None), (9, 3), (7, 2), (8, None), (8, None), (9, None)]
    assert _core._merge_by_pid(rows) == [(7, 2), (8, None), (9, 5)]


# ---------------------------------------------------------------- which record is ours


def test_our_pid_with_bytes() -> None:
    for known in ({"numbers_ours": True}, {"initial_namespace": True}):
        found = _core._find_own([(7, 5 * MIB), (9, GIB)], pid=7, **known)
        assert found == ("pid", 7, 5 * MIB, "")


@pytest.mark.parametrize("numbers_ours", [None, False])
@pytest.mark.parametrize("used", [GIB, 0, None])
def test_our_pid_in_numbers_that_may_be_anybodys(
    numbers_ours: bool | None, used: int | None
) -> None:
    """Outside the machine's own namespace a driver may list the machine's numbers."""
    source, pid, own_bytes, reason = _core._find_own(
        [(7, used), (9, GIB)], pid=7, numbers_ours=numbers_ours, context_live=True
    )
    assert (source, pid, own_bytes) == ("none", None, None)
    assert "identify() can tell" in reason


@pytest.mark.parametrize("used", [0, None])
def test_our_pid_without_bytes_is_unknown(used: int | None) -> None:
    source, pid, own_bytes, reason = _core._find_own([(7, used)], pid=7, initial_namespace=True)
    assert (source, pid, own_bytes) == ("none", 7, None)
    assert reason


def test_absent_is_unknown() -> None:
    source, pid, own_bytes, reason = _core._find_own([(8, GIB)], pid=7)
    assert (source, pid, own_bytes) == ("none", None, None)
    assert "none of the 1 listed processes" in reason


@pytest.mark.parametrize(
    ("initial_namespace", "context_live", "own_bytes"),
    [(True, False, 0), (True, None, None), (True, True, None), (False, False, None)],
)
def test_absent_is_nothing_only_on_the_bare_machine_without_a_context(
    initial_namespace: bool, context_live: bool | None, own_bytes: int | None
) -> None:
    found = _core._find_own(
        [(8, GIB)], pid=7, initial_namespace=initial_namespace, context_live=context_live
    )
    assert found[2] == own_bytes


@pytest.mark.parametrize("mig_enabled", [True, None])
def test_absent_from_a_divided_device_is_unknown(mig_enabled: bool | None) -> None:
    """Our context may be on one of its instances."""
    found = _core._find_own(
        [(8, GIB)], pid=7, initial_namespace=True, context_live=False, mig_enabled=mig_enabled
    )
    assert found[2] is None


def test_absent_from_an_empty_list_is_unknown() -> None:
    """Some drivers list nobody, whoever holds memory."""
    assert _core._find_own([], pid=7, initial_namespace=True, context_live=False)[2] is None


def test_the_number_in_an_outer_namespace() -> None:
    own = _core._find_own([(31000, GIB), (31001, MIB)], pid=7, outer_pids=[31000])
    assert own[:3] == ("nspid", 31000, GIB)


def test_two_numbers_that_could_be_ours_are_none() -> None:
    source, _, own_bytes, reason = _core._find_own(
        [(7, MIB), (31000, GIB)], pid=7, outer_pids=[31000]
    )
    assert (source, own_bytes) == ("none", None)
    assert "identify" in reason


def test_a_strangers_number_is_rejected_by_what_our_allocator_holds() -> None:
    rows = [(7, 100 * MIB)]
    found = _core._find_own(rows, pid=7, numbers_ours=True, reserved_bytes=100 * MIB)
    assert found[0] == "pid"
    source, _, own_bytes, reason = _core._find_own(
        rows, pid=7, numbers_ours=True, reserved_bytes=101 * MIB
    )
    assert (source, own_bytes) == ("none", None)
    assert "another process's number" in reason


def test_in_the_machines_own_namespace_our_pid_is_ours() -> None:
    """Managed memory is in the allocator's account and in no process's: not a contradiction."""
    own = _core._find_own([(7, 100 * MIB)], pid=7, initial_namespace=True, reserved_bytes=101 * MIB)
    assert own == ("pid", 7, 100 * MIB, "")


def test_a_rejected_pid_leaves_the_outer_number() -> None:
    own = _core._find_own(
        [(7, MIB), (31000, GIB)], pid=7, outer_pids=[31000], reserved_bytes=2 * MIB
    )
    assert own[:3] == ("nspid", 31000, GIB)


def test_a_fingerprint_wins_over_a_coincidence() -> None:
    own = _core._find_own([(7, GIB), (31000, 3 * MIB)], pid=7, remembered_pid=31000)
    assert own[:3] == ("fingerprint", 31000, 3 * MIB)


def test_a_fingerprint_that_confirms_a_number_keeps_its_name() -> None:
    assert _core._find_own([(7, GIB)], pid=7, remembered_pid=7)[0] == "pid"
    own = _core._find_own([(7, 1), (9, GIB)], pid=7, outer_pids=[9], remembered_pid=9)
    assert own[:3] == ("nspid", 9, GIB)


def test_a_fingerprint_that_is_not_listed_is_unknown() -> None:
    source, pid, own_bytes, reason = _core._find_own([(7, GIB)], pid=7, remembered_pid=31000)
    assert (source, pid, own_bytes) == ("fingerprint", 31000, None)
    assert "not listed" in reason


def test_a_fingerprint_whose_context_has_ended_holds_nothing() -> None:
    for context_live, own_bytes in ((False, 0), (None, None), (True, None)):
        found = _core._find_own([(9, GIB)], pid=7, remembered_pid=31000, context_live=context_live)
        assert found[2] == own_bytes
    # An empty list says nothing; neither does one of a device whose instance we may be on.
    for rows, mig in (([], False), ([(9, GIB)], True)):
        found = _core._find_own(
            rows, pid=7, remembered_pid=31000, context_live=False, mig_enabled=mig
        )
        assert found[2] is None


@pytest.mark.parametrize(
    ("rows", "context_live", "refuted"),
    [
        ([(9, GIB)], True, True),  # others, not the one that was ours
        ([(9, GIB), (31000, 0)], True, False),
        ([(9, GIB)], False, False),
        ([(9, GIB)], None, False),
        ([], True, False),
    ],
)
def test_a_list_can_refute_a_fingerprint(
    rows: list[tuple[int, int | None]], context_live: bool | None, refuted: bool
) -> None:
    found = _core._refutes_memory(rows, remembered_pid=31000, context_live=context_live)
    assert found is refuted


def test_a_process_without_the_driver_holds_nothing() -> None:
    assert _core._find_own([(9, GIB)], pid=7, driver_unused=True)[2] == 0
    # Outside the machine's namespace our number in the list is a stranger's then.
    assert _core._find_own([(7, GIB)], pid=7, driver_unused=True)[2] == 0
    # Inside it, the list is better evidence than the driver's word.
    own = _core._find_own([(7, GIB)], pid=7, driver_unused=True, initial_namespace=True)
    assert own[:3] == ("pid", 7, GIB)


# ---------------------------------------------------------------- memory, keys, procfs


def test_memory_is_understood_by_what_adds_up() -> None:
    total, reserved, free = 80 * GIB, GIB, 70 * GIB
    used = 9 * GIB
    understood = (used, reserved)
    assert (
        _core._interpret_memory(total=total, reserved=reserved, free=free, used=used) == understood
    )
    # As older documentation has it: used with the reserve.
    assert (
        _core._interpret_memory(total=total, reserved=reserved, free=free, used=used + reserved)
        == understood
    )
    # Neither: in use is unknown, the rest is not.
    assert _core._interpret_memory(total=total, reserved=reserved, free=free, used=8 * GIB) == (
        None,
        reserved,
    )
    assert _core._interpret_memory(total=0, reserved=0, free=0, used=0) == (None, None)


UUIDS = ["GPU-aaaa1111", "GPU-aaaa2222", "GPU-bbbb3333", "MIG-cccc4444"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("0", [0]),
        ("2,0", [2, 0]),
        ("1gpu2", [1]),
        (" 1 , 2 ", [1, 2]),
        ("", []),
        ("-1", []),
        ("0,-1,1", [0]),
        ("0,9,1", [0]),
        ("0,1,0", []),
        ("GPU-b,GPU-aaaa1", [2, 0]),
        ("GPU-aaaa", []),
        ("GPU-b,1", [2]),
        ("1,GPU-b", [1]),
        ("GPU-b,GPU-bbbb", []),
        ("GPU-b,GPU-x,GPU-b", []),  # twice, though what is before it names no device
        ("0,9,0", []),
        ("0,99999999999999999999,99999999999999999999", []),
        ("0,99999999999999999999,99999999999999999998", [0]),
        ("-0", [0]),
        ("+1,007", [1]),
        ("+", []),
        ("- 1", []),
        ("1 2,0", [1, 0]),
        ("0,,1", [0]),
        (" GPU-b", []),
        ("GPU-b ,GPU-aaaa1", []),
        ("GPU-b,MIG-c", [2]),
        ("MIG-c", [3]),
        ("none", []),
    ],
)
def test_visible_devices(value: str, expected: list[int]) -> None:
    assert _core._visible_devices(value, UUIDS) == expected


@pytest.mark.parametrize(
    ("rows", "merged"),
    [
        # Told twice, once by a record that is too short for ids.
        ([(7, 5, None), (7, 6, 1)], [(7, 6, 1)]),
        ([(7, 5, 1), (7, None, 1), (8, 1, 2)], [(7, 5, 1), (8, 1, 2)]),
        # On two instances, on three: it holds all of it, and is in none alone.
        ([(7, 5, 2), (7, 6, 1)], [(7, 11, None)]),
        ([(7, 5, 2), (7, 6, 1), (7, 5, 2), (7, 4, 3)], [(7, 15, None)]),
        ([(7, 5, 2), (7, None, 1)], [(7, None, None)]),
    ],
)
def test_one_record_for_each_process(rows: list[Any], merged: list[Any]) -> None:
    for order in permutations(rows):
        assert _core._merge_instances(order) == merged


UUID_BYTES = bytes(range(16))
GPU_UUID = "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f"
OTHER_UUID = "GPU-ff010203-0405-0607-0809-0a0b0c0d0e0f"
PCI = "0000:0A:00.0"


@pytest.mark.parametrize(
    ("cuda_uuid", "nvml_uuid", "mig_enabled", "same"),
    [
        (UUID_BYTES, GPU_UUID, False, True),
        (UUID_BYTES, GPU_UUID, None, True),
        (UUID_BYTES, OTHER_UUID, False, False),  # at one address, and yet two devices
        (b"", GPU_UUID, False, True),
        (UUID_BYTES, "PCI-00000000:0a:00.0", None, True),
        # A divided GPU is none of CUDA's devices: those are its instances.
        (UUID_BYTES, GPU_UUID, True, False),
        (b"", GPU_UUID, True, False),
        (UUID_BYTES, GPU_UUID.replace("GPU", "MIG"), None, True),
        (UUID_BYTES, OTHER_UUID.replace("GPU", "MIG"), None, False),
        (b"", GPU_UUID.replace("GPU", "MIG"), None, False),
    ],
)
def test_which_devices_are_the_same(
    cuda_uuid: bytes, nvml_uuid: str, mig_enabled: bool | None, same: bool
) -> None:
    found = _core._same_device(
        cuda_uuid=cuda_uuid,
        cuda_pci=PCI,
        nvml_uuid=nvml_uuid,
        nvml_pci="00000000:0a:00.0",
        mig_enabled=mig_enabled,
    )
    assert found is same


def test_stat_of_a_command_with_parentheses() -> None:
    tail = " ".join(str(n) for n in range(5, 22))
    assert _core._parse_stat(f"12 (a) b) (c) S 34 {tail} 777 0\n") == ("S", 34, 777)
    assert _core._parse_stat("12 (a") is None
    assert _core._parse_stat("12 (a) S x 1 2") is None
