"""Dry runs made by arithmetic, for what only reckons with them; hypothesis strategies of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from memacct.dry_run.request import Machine, Request
from memacct.dry_run.result import Amount, Count, DryRun, Host, Phase, Rank, Refusal, Row

_TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
_BYTES = st.integers(-(2**50), 2**50)
_FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def a_machine(**changed: Any) -> Machine:
    """One GPU of 8 GiB."""
    total = 8 << 30
    given = {"gpu": "total=8GiB", "title": "a GPU of 8 GiB", "driver_name": "NVIDIA H100 80GB HBM3"}
    sizes = {"total_bytes": total, "cuda_total_bytes": total, "compute_capability": (9, 0)}
    return Machine(**{**given, **sizes, **changed})


def a_request(*arguments: str, model: Path = Path("/none"), **changed: Any) -> Request:
    """A request for that GPU."""
    given = {"machine": a_machine(), "python": Path("/none/python"), "environ": {}}
    return Request(model=model, arguments=arguments, **{**given, **changed})


def optional(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Or nothing."""
    return st.none() | strategy


AMOUNTS = st.builds(Amount, bytes=_BYTES, low_bytes=_BYTES, high_bytes=_BYTES, source=_TEXT)
COUNTS = st.builds(Count, value=_FLOATS, low=_FLOATS, high=_FLOATS)
ROWS = st.lists(st.builds(Row, name=_TEXT, amount=AMOUNTS), max_size=3).map(tuple)
RANKS = st.builds(
    Rank,
    rank=st.integers(0, 7),
    device=st.integers(0, 7),
    total_bytes=_BYTES,
    requested_bytes=optional(_BYTES),
    weights=optional(AMOUNTS),
    context=optional(AMOUNTS),
    graphs=optional(AMOUNTS),
    kv_room_bytes=optional(_BYTES),
    peak=ROWS,
    started=ROWS,
)
MACHINES = st.builds(
    Machine,
    gpu=_TEXT,
    title=_TEXT,
    driver_name=_TEXT,
    total_bytes=_BYTES,
    cuda_total_bytes=_BYTES,
    compute_capability=st.tuples(st.integers(7, 12), st.integers(0, 9)),
    sm_count=optional(st.integers(1, 200)),
    neighbours_bytes=st.lists(_BYTES, max_size=2).map(tuple),
    sources=st.dictionaries(_TEXT, _TEXT, max_size=2),
)
REQUESTS = st.builds(
    Request,
    model=st.just(Path("/models/one")),
    arguments=st.lists(_TEXT, max_size=4).map(tuple),
    machine=MACHINES,
    python=st.just(Path("/usr/bin/python3")),
    environ=st.dictionaries(_TEXT, _TEXT, max_size=2),
)
SETTINGS = st.dictionaries(
    _TEXT, st.none() | st.booleans() | st.integers() | _FLOATS | _TEXT | st.lists(st.integers())
)
RUNS = st.builds(
    DryRun,
    request=REQUESTS,
    verdict=st.sampled_from(["starts", "does not fit"]),
    versions=st.dictionaries(_TEXT, _TEXT, max_size=2),
    settings=SETTINGS,
    ranks=st.lists(RANKS, max_size=2).map(tuple),
    kv_tokens=optional(COUNTS),
    concurrency=optional(COUNTS),
    host=optional(
        st.builds(Host, held=AMOUNTS, reclaimable=AMOUNTS, processes_count=st.integers(1, 9))
    ),
    timeline=st.lists(
        st.builds(
            Phase, name=_TEXT, rank=optional(st.integers(0, 7)), begin_s=_FLOATS, seconds=_FLOATS
        ),
        max_size=2,
    ).map(tuple),
    refusal=optional(
        st.builds(
            Refusal,
            kind=_TEXT,
            message=_TEXT,
            missing=optional(AMOUNTS),
            suggestions=st.lists(_TEXT, max_size=2).map(tuple),
        )
    ),
    notes=st.lists(_TEXT, max_size=2).map(tuple),
    took_s=_FLOATS,
)
