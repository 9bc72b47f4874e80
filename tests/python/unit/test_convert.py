"""Native structs to plain data and back, and that nothing of the contract is left out."""

from __future__ import annotations

import ast
import pickle
from dataclasses import fields
from pathlib import Path

import pytest

import memacct
from memacct import Snapshot, _convert, _core, _types

STUB = Path(memacct.__file__).with_name("_core.pyi")


def stub_classes() -> dict[str, list[str]]:
    """The attributes that the stub promises, by class."""
    classes = [node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.ClassDef)]
    return {
        node.name: [
            item.target.id
            for item in node.body
            if isinstance(item, ast.AnnAssign)
            and isinstance(item.target, ast.Name)
            and not item.target.id.startswith("_")
        ]
        for node in classes
    }


@pytest.mark.parametrize("name", stub_classes())
def test_each_struct_has_the_fields_that_the_stub_promises(name: str) -> None:
    assert list(getattr(_core, name)._fields) == stub_classes()[name]


def test_convert_knows_every_field_that_holds_structs() -> None:
    classes = stub_classes()
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(STUB.read_text()).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                names = {n.id for n in ast.walk(item.annotation) if isinstance(n, ast.Name)}
                if held := names & set(classes):
                    found.setdefault(node.name, {})[item.target.id] = held.pop()
    assert found == _convert.NESTED


@pytest.mark.parametrize(
    ("delta", "reading"),
    [
        (_types.HostDelta, "HostMemory"),
        (_types.CgroupDelta, "CgroupMemory"),
        (_types.SystemDelta, "SystemMemory"),
        (_types.DeviceDelta, "DeviceMemory"),
        (_types.AllocatorDelta, "AllocatorMemory"),
    ],
)
def test_every_byte_count_has_a_difference_or_a_reason_not_to(delta: type, reading: str) -> None:
    without = {
        # peaks and capacities
        *("peak_rss_bytes", "peak_vms_bytes", "peak_reserved_bytes", "peak_allocated_bytes"),
        *("total_bytes", "limit_bytes", "high_bytes", "cuda_total_bytes"),
        *("hidden_limit_bytes", "swap_total_bytes"),
        # another source's free_bytes; a pair of bounds
        *("cuda_free_bytes", "own_read_bounds_bytes", "foreign_read_bounds_bytes"),
        "rss_error_bound_bytes",  # says how good another is
    }
    sizes = {name for name in stub_classes()[reading] if name.endswith("_bytes")}
    assert {f.name for f in fields(delta) if f.name.endswith("_bytes")} == sizes - without


def test_to_dict_is_plain_data_with_every_field() -> None:
    snapshot = memacct.snapshot(limits=True)
    data = snapshot.to_dict()
    assert list(data) == list(Snapshot._fields)
    assert data["host"]["rss_bytes"] == snapshot.host.rss_bytes
    assert data["devices"] == []
    assert data["torch"] is None


def test_delta_to_dict() -> None:
    snapshot = memacct.snapshot()
    data = _convert.to_dict(snapshot - snapshot)
    assert data["elapsed_ns"] == 0
    assert data["host"]["rss_bytes"] == 0
    assert data["devices"] == []


def test_data_of_an_older_memacct_lacks_what_is_then_unknown() -> None:
    data = {"uuid": "GPU-a", "reserved_bytes": 1, "allocated_bytes": 2}
    allocator = _convert.from_dict(_core.AllocatorMemory, data)
    assert allocator.peak_reserved_bytes is None
    assert allocator == _core.AllocatorMemory("GPU-a", 1, 2)


def test_a_key_that_is_no_field_is_named() -> None:
    with pytest.raises(ValueError, match="SystemMemory has no field 'free'; it has total_bytes"):
        _convert.from_dict(_core.SystemMemory, {"free": 1})


def test_a_value_that_must_be_known_is_named() -> None:
    with pytest.raises(TypeError, match="free_bytes"):
        _convert.from_dict(_core.SystemMemory, {"total_bytes": 1})


@pytest.mark.parametrize("value", [-1, 2**64, 1.5, "1"])
def test_a_size_that_is_none_is_named(value: object) -> None:
    with pytest.raises(TypeError, match="total_bytes"):
        _convert.from_dict(_core.SystemMemory, {"total_bytes": value, "free_bytes": 1})


def test_an_unknown_tier_is_refused() -> None:
    data = {"tier": "guess", "pid": 1, "vms_bytes": 1, "rss_bytes": 1}
    with pytest.raises(TypeError, match="tier"):
        _convert.from_dict(_core.HostMemory, data)


def test_a_part_outlives_its_snapshot() -> None:
    host = memacct.snapshot().host
    for _ in range(100):
        memacct.snapshot()
    assert host.rss_bytes > 0
    assert pickle.loads(pickle.dumps(host)) == host  # noqa: S301 (our own bytes)


def test_structs_cannot_be_changed() -> None:
    snapshot = memacct.snapshot()
    with pytest.raises(AttributeError):
        snapshot.pid = 1
    with pytest.raises(AttributeError):
        snapshot.other = 1  # type: ignore[attr-defined]


def test_repr_names_what_is_known() -> None:
    system = _convert.from_dict(_core.SystemMemory, {"total_bytes": 3, "free_bytes": 2})
    assert repr(system) == "SystemMemory(total_bytes=3, free_bytes=2)"
