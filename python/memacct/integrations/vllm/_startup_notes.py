"""How large the tensors in a new object are, for the span in which it was made."""

from __future__ import annotations

from typing import Any

# Smaller ones do not explain a start; naming them all would hide those that do.
_LEAST_BYTES = 64 << 10
# Named whatever their size: they are max_num_seqs x max_model_len.
_ALWAYS = ("token_ids_cpu_tensor", "is_token_ids_tensor", "is_token_ids", "all_token_ids")
_DEPTH = 2
_MOST_ITEMS = 64


def tensor_bytes(value: Any) -> int | None:
    """Returns the bytes of a tensor or an array; None of anything else."""
    size = getattr(value, "nbytes", None)
    return size if isinstance(size, int) and not isinstance(size, bool) else None


def buffer_notes(made: Any) -> dict[str, int]:
    """Returns ``<attribute>_bytes`` of the object's large tensors, on whatever device.

    Of an attribute that holds several (a staged tensor and its copies), their sum. What lies at
    one address counts once: a NumPy view of a tensor is not another one.
    """
    notes: dict[str, int] = {}
    seen: dict[int, int] = {}
    for name, value in getattr(made, "__dict__", {}).items():
        size_bytes = _sum_bytes(value, seen, _DEPTH)
        if size_bytes >= _LEAST_BYTES or (size_bytes and name in _ALWAYS):
            notes[f"{name}_bytes"] = size_bytes
    return notes


def _sum_bytes(value: Any, seen: dict[int, int], depth: int) -> int:
    size_bytes = tensor_bytes(value)
    if size_bytes is not None:
        address = _address(value)
        new_bytes = max(size_bytes - seen.get(address, 0), 0)
        seen[address] = seen.get(address, 0) + new_bytes
        return new_bytes
    if depth == 0:
        return 0
    if isinstance(value, (list, tuple)):
        return sum(_sum_bytes(each, seen, depth) for each in value[:_MOST_ITEMS])
    inner = getattr(value, "__dict__", None)
    if not isinstance(inner, dict) or isinstance(value, type):
        return 0
    items = list(inner.values())[:_MOST_ITEMS]
    return sum(_sum_bytes(each, seen, depth - 1) for each in items)


def _address(value: Any) -> int:
    pointer = getattr(value, "data_ptr", None)
    if callable(pointer):
        return int(pointer())
    interface = getattr(value, "__array_interface__", None)
    return int(interface["data"][0]) if interface else id(value)
