"""One public log's command, dry-run in the log's own vLLM; the answer as plain data."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from memacct._errors import MemacctError
from memacct.dry_run.machine import machine
from memacct.dry_run.request import Machine, Request
from memacct.dry_run.start import run

from .cases import GIB, Case

if TYPE_CHECKING:
    from memacct.dry_run.result import Amount, DryRun, Rank

LIMIT_S = 420.0


def machine_of(case: Case) -> Machine:
    """The log's machine: the catalogue's card, with the total that the log states."""
    if case.card is not None:
        made = machine(case.card, count=case.count)
    else:
        device = case.device or {}
        like = machine(f"{device['total_mib']}MiB", count=case.count)
        made = replace(
            like,
            title=device["driver_name"],
            driver_name=device["driver_name"],
            compute_capability=tuple(device["compute_capability"]),
            sm_count=device["sm_count"],
        )
    made = replace(made, wsl=case.wsl2, nvlink=case.nvlink)
    if case.total_gib is None:
        return made
    total = int(case.total_gib * GIB)
    return replace(made, cuda_total_bytes=total, total_bytes=max(total, made.total_bytes))


def run_case(case: Case, python: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """What the dry run answers, or why it has none ("error")."""
    begin_s = time.monotonic()
    found: dict[str, Any] = {
        "key": case.key,
        "date": dt.datetime.now(dt.timezone.utc).date().isoformat(),
    }
    request = Request(
        model=case.folder,
        arguments=case.arguments,
        machine=machine_of(case),
        python=python,
        environ=dict(case.environ),
    )
    try:
        found |= plain(run(request, limit_s=LIMIT_S, say=say))
    except MemacctError as error:
        found["error"] = str(error)
    found["took_s"] = round(time.monotonic() - begin_s, 1)
    return found


def plain(answer: DryRun) -> dict[str, Any]:
    """The numbers that a log has too, of the first rank, whose sizes vLLM logs."""
    rank = answer.ranks[0] if answer.ranks else None
    tokens, concurrency = answer.kv_tokens, answer.concurrency
    found: dict[str, Any] = {
        "verdict": answer.verdict,
        "versions": dict(answer.versions),
        "settings": settings(answer.settings),
        "refusal": answer.refusal.message if answer.refusal else None,
        "concurrency": concurrency.value if concurrency else None,
    }
    if tokens is not None:
        found |= {
            "kv_tokens": int(tokens.value),
            "kv_tokens_low": int(tokens.low),
            "kv_tokens_high": int(tokens.high),
        }
    return found | (terms(rank) if rank else {})


def terms(rank: Rank) -> dict[str, Any]:
    """One rank's terms as the engine's log has them, bytes."""
    amounts: Mapping[str, Amount | None] = {
        "weights_bytes": rank.weights,
        "peak_bytes": rank.activation_peak,
        "non_torch_bytes": rank.non_torch,
        "graphs_estimated_bytes": rank.graphs_estimated,
        "graphs_bytes": rank.graphs,
        "kv_bytes": rank.kv_cache,
    }
    found: dict[str, Any] = {name: one.bytes if one else None for name, one in amounts.items()}
    if rank.kv_cache:
        found |= {
            "kv_low_bytes": rank.kv_cache.low_bytes,
            "kv_high_bytes": rank.kv_cache.high_bytes,
        }
    return {**found, "total_bytes": rank.total_bytes, "requested_bytes": rank.requested_bytes}


def settings(values: Mapping[str, object]) -> dict[str, object]:
    """Those that are plain."""
    return {name: value for name, value in values.items() if isinstance(value, (str, int, float))}
