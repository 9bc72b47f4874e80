"""snapshot() takes its arguments as a Python function with its signature would."""

from __future__ import annotations

from typing import Any

import pytest

import memacct
from memacct import _core


@pytest.mark.parametrize("host", ["counters", "breakdown", "rollup"])
def test_host_by_position_and_by_keyword(host: _core.HostTier) -> None:
    assert memacct.snapshot(host).host.tier == host
    assert memacct.snapshot(host=host).host.tier == host
    call: Any = memacct.snapshot
    name, not_interned = "".join(["h", *"ost"]), "".join(list(host))
    assert call(**{name: not_interned}).host.tier == host


def test_defaults() -> None:
    snapshot = memacct.snapshot()
    assert snapshot.host.tier == "breakdown"
    assert snapshot.devices == ()
    assert snapshot.torch is None
    assert snapshot.cgroup is None
    assert snapshot.system is None


def test_devices_none_is_not_asked_for() -> None:
    assert memacct.snapshot(devices=None).devices is None
    assert memacct.snapshot("counters", None).devices is None


def test_limits_come_with_the_rollup_or_when_asked_for() -> None:
    assert memacct.snapshot("rollup").system is not None
    assert memacct.snapshot("rollup", limits=False).system is None
    assert memacct.snapshot("counters", limits=True).system is not None
    assert memacct.snapshot("counters", limits=None).system is None


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("counters", None, True), {}, "at most 2 positional"),
        (("counters",), {"host": "counters"}, "multiple values for argument 'host'"),
        ((), {"hosts": "counters"}, "unexpected keyword argument 'hosts'"),
        ((), {"devices": 1.5}, "devices must be"),
        ((), {"devices": [1.5]}, "CUDA ordinal or a UUID"),
    ],
)
def test_wrong_calls_are_type_errors(
    args: tuple[Any, ...], kwargs: dict[str, Any], message: str
) -> None:
    with pytest.raises(TypeError, match=message):
        memacct.snapshot(*args, **kwargs)


@pytest.mark.parametrize("host", ["", "Counters", "smaps", None, 1, b"counters"])
def test_an_unknown_tier_names_the_allowed_ones(host: Any) -> None:
    with pytest.raises(
        ValueError,
        match="host must be one of 'counters', 'breakdown', 'rollup', 'residency', 'mappings'",
    ):
        memacct.snapshot(host)


def test_an_unknown_set_of_devices_names_the_allowed_ones() -> None:
    with pytest.raises(ValueError, match="devices must be 'auto', 'all'"):
        memacct.snapshot(devices="some")


def test_an_error_in_the_truth_of_limits_is_passed_on() -> None:
    class Undecided:
        def __bool__(self) -> bool:
            raise LookupError

    with pytest.raises(LookupError):
        memacct.snapshot(limits=Undecided())  # type: ignore[arg-type]


@pytest.mark.parametrize("reader", [1, "name"])
def test_an_allocator_reader_must_be_callable(reader: Any) -> None:
    with pytest.raises(TypeError, match="callable"):
        _core.set_allocator_reader(reader)


def test_difference_with_something_else_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        memacct.snapshot() - 1  # type: ignore[operator]
