"""Native readings to plain data (dict, JSON) and back: the one place that knows their shape.

Every native struct lists its fields (``_fields``) and can be made from their values
(``_make``), as a namedtuple can; only which fields hold structs is written here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from memacct import _core

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

T = TypeVar("T")

# Of each struct that holds others: the field, and the name of what it holds one or a tuple of.
NESTED: dict[str, dict[str, str]] = {
    "Snapshot": {
        "host": "HostMemory",
        "mappings": "Mappings",
        "cgroup": "CgroupMemory",
        "system": "SystemMemory",
        "limits": "MemoryLimits",
        "devices": "DeviceMemory",
        "torch": "AllocatorMemory",
    },
    "CgroupMemory": {"levels": "CgroupLevel", "pressure": "Pressure", "events": "CgroupEvents"},
    "SystemMemory": {
        "pressure": "Pressure",
        "nodes": "NumaNode",
        "hugetlb_pools": "HugetlbPool",
    },
    "ProcessMemory": {"host": "HostMemory"},
    "TreeSnapshot": {"processes": "ProcessMemory"},
    "AllocatorMemory": {"pools": "AllocatorPool", "private_pools": "AllocatorPool"},
    "DeviceMemory": {
        "processes": "ProcessUsage",
        "attribution": "Attribution",
        "unified": "UnifiedMemory",
    },
}


def to_dict(reading: Any, *, without: Collection[str] = ()) -> dict[str, Any]:
    """Returns a reading or a delta as a dict that JSON can hold: structs are dicts, tuples lists.

    Args:
        reading: any native struct of ``memacct._core``, dataclass or named tuple.
        without: fields to leave out; read back, they are unknown.
    """
    return {name: _plain(getattr(reading, name)) for name in _names(reading) if name not in without}


def _names(reading: Any) -> Iterable[str]:
    if not hasattr(reading, "__dataclass_fields__"):
        names: tuple[str, ...] = reading._fields
        return names
    from dataclasses import fields  # with inspect, slower than all that needs no dataclass

    return [field.name for field in fields(reading)]


def _plain(value: Any) -> Any:
    if hasattr(value, "_fields") or hasattr(value, "__dataclass_fields__"):  # named tuples, too
        return to_dict(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def from_dict(kind: type[T], data: Mapping[str, Any]) -> T:
    """Returns the native struct that ``to_dict`` made ``data`` of.

    Args:
        kind: the native class.
        data: plain data. A field that it lacks is unknown (None), so that data of an older
            memacct can be read.

    Raises:
        ValueError: ``data`` has a key that is no field of ``kind``.
        TypeError: a value is of the wrong type, or a field that is always known is not.
    """
    names: tuple[str, ...] = kind._fields  # type: ignore[attr-defined]
    unknown = sorted(set(data) - set(names))
    if unknown:
        raise ValueError(f"{kind.__name__} has no field {unknown[0]!r}; it has {', '.join(names)}")
    nested = NESTED.get(kind.__name__, {})
    values = [_native(data.get(name), nested.get(name)) for name in names]
    made: T = kind._make(values)  # type: ignore[attr-defined]
    return made


def _native(value: Any, kind_name: str | None) -> Any:
    if value is None or kind_name is None:
        return value
    if isinstance(value, (list, tuple)):
        return [_native(item, kind_name) for item in value]
    return from_dict(getattr(_core, kind_name), value)


def reduce(reading: T) -> tuple[Callable[..., T], tuple[type[T], dict[str, Any]]]:
    """Returns how to pickle a native struct (its ``__reduce__``): as plain data."""
    return from_dict, (type(reading), to_dict(reading))
