"""What a reading must say in each named scenario: the answers, by the scenario's name.

A family's answers are a dict next to others, joined in ``ANSWERS``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from memacct._units import GIB, MIB
from memacct.sim._scenarios_instances import FIRST_UUID, GPU_UUID

CONTEXT_BYTES = 400 * MIB
ALLOCATED_BYTES = 64 * MIB
OWN_BYTES = CONTEXT_BYTES + ALLOCATED_BYTES
TOTAL_BYTES = 32 * GIB
RESERVED_BYTES = 500 * MIB
NEIGHBOUR_BYTES = 3 * GIB + CONTEXT_BYTES
IN_USE_BYTES = OWN_BYTES + NEIGHBOUR_BYTES
FREE_BYTES = TOTAL_BYTES - RESERVED_BYTES - IN_USE_BYTES
OURS = f"context(); allocate({ALLOCATED_BYTES})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Every term of the reading of one process that holds OWN_BYTES beside one neighbour.

    Attributes:
        setup: what the process does first (see device_process.py).
        key: the device that it reads then.
        bounds_bytes: of what it holds itself.
        reason: words of attribution.reason; "" is no reason at all.
        identified: source and own_bytes after identify().
        fields: other fields of the reading, by name.
    """

    setup: str = OURS
    key: int | str = 0
    total_bytes: int = TOTAL_BYTES
    free_bytes: int = FREE_BYTES
    device_used_bytes: int | None = IN_USE_BYTES
    reserved_bytes: int | None = RESERVED_BYTES
    own_bytes: int | None = OWN_BYTES
    tree_bytes: int | None = 0
    foreign_bytes: int | None = NEIGHBOUR_BYTES
    unattributed_bytes: int | None = 0
    source: str = "pid"
    bounds_bytes: tuple[int | None, int | None] = (OWN_BYTES, OWN_BYTES)
    reason: str = ""
    identified: tuple[str, int | None] = ("pid", OWN_BYTES)
    fields: Mapping[str, Any] = field(default_factory=dict)

    def terms(self) -> dict[str, int | None]:
        """The equation's terms, by the reading's names."""
        names = ("total", "free", "device_used", "reserved", "own", "tree", "foreign")
        return {f"{name}_bytes": getattr(self, f"{name}_bytes") for name in names} | {
            "unattributed_bytes": self.unattributed_bytes
        }


_RIGHT = Answer()
# Who is who is unknown, and so is every term that depends on it.
_NOBODY_KNOWN: dict[str, Any] = {
    "own_bytes": None,
    "tree_bytes": None,
    "foreign_bytes": None,
    "unattributed_bytes": None,
    "source": "none",
    "bounds_bytes": (None, IN_USE_BYTES),
    "identified": ("none", None),
}

DRIVERS = {
    "bare-host": _RIGHT,
    "host-pids": Answer(
        **_NOBODY_KNOWN
        | {
            "tree_bytes": 0,
            "reason": "none of the 2 listed processes has this process's number",
            "identified": ("fingerprint", OWN_BYTES),
        },
    ),
    # Nobody else is listed: of those listed, others hold 0; of those not listed, nothing is known.
    "zero-bytes": Answer(
        **_NOBODY_KNOWN | {"tree_bytes": 0, "foreign_bytes": 0}, reason="with 0 bytes"
    ),
    # A hidden neighbour is nobody's, not ours and not zero.
    "container-pids": Answer(foreign_bytes=0, unattributed_bytes=NEIGHBOUR_BYTES),
    "all-not-available": Answer(**_NOBODY_KNOWN | {"tree_bytes": 0}, reason="not tell its bytes"),
    "own-not-available": Answer(
        **_NOBODY_KNOWN | {"tree_bytes": 0, "foreign_bytes": NEIGHBOUR_BYTES},
        reason="not tell its bytes",
    ),
    # This process has no children, which /proc tells without the driver.
    "lists-refused": Answer(**_NOBODY_KNOWN | {"tree_bytes": 0}, reason="returned 4"),
    "records-16-bytes": _RIGHT,
    "records-v3-16-bytes": _RIGHT,
    "records-v3-24-bytes": _RIGHT,
    "records-v3-32-bytes": _RIGHT,
    "no-v3": _RIGHT,
    # v1 counts the reserve as used: what is in use besides it is unknown, and so is the rest.
    "no-memory-info-v2": Answer(
        reserved_bytes=None, device_used_bytes=None, unattributed_bytes=None
    ),
}

PIDS = {
    "namespace-machine-pids": DRIVERS["host-pids"],
    "namespace-zero-bytes": DRIVERS["zero-bytes"],
    "namespace-own-pids": Answer(
        foreign_bytes=0,
        unattributed_bytes=NEIGHBOUR_BYTES,
        reason="only processes of this pid namespace are listed",
    ),
    "mps-clients": _RIGHT,
    "two-lists": _RIGHT,
}

_INSTANCE = {"uuid": FIRST_UUID, "parent_uuid": GPU_UUID, "index": None, "cuda_ordinal": 0}
_OTHER_BYTES = 5 * GIB + CONTEXT_BYTES  # on the other instance
_BOTH_IN_USE_BYTES = IN_USE_BYTES + _OTHER_BYTES
_BOTH_RESERVED_BYTES = GIB + 2 * RESERVED_BYTES
_WHOLE: dict[str, Any] = {
    "key": GPU_UUID,
    "total_bytes": 141 * GIB,
    "reserved_bytes": _BOTH_RESERVED_BYTES,
    "device_used_bytes": _BOTH_IN_USE_BYTES,
    "free_bytes": 141 * GIB - _BOTH_RESERVED_BYTES - _BOTH_IN_USE_BYTES,
    "fields": {"uuid": GPU_UUID, "parent_uuid": None, "index": 0, "cuda_ordinal": None},
}

INSTANCES = {
    # Not the GPU's 141 GiB, nor who is on another instance.
    "mig": Answer(fields=_INSTANCE),
    "mig-parent": Answer(
        **_WHOLE | _NOBODY_KNOWN | {"tree_bytes": 0, "bounds_bytes": (None, _BOTH_IN_USE_BYTES)},
        reason="divided into MIG instances",
    ),
    "mig-monitored": Answer(**_WHOLE, foreign_bytes=NEIGHBOUR_BYTES + _OTHER_BYTES),
    "unlike-gpus": Answer(fields={"index": 1, "cuda_ordinal": 0, "name": "NVIDIA H100"}),
}

ANSWERS: dict[str, Answer] = {**DRIVERS, **PIDS, **INSTANCES}
