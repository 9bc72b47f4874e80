"""How far a dry run is from its log, and whether its range contains what was logged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .cases import GIB, Case

# What the dry run promises.
KV_RATIO, KV_GIB, WEIGHTS_RATIO = 0.02, 0.3, 0.005
# A log rounds to hundredths of a GiB: what it prints may be this much off.
ROUNDING_GIB = 0.005

# The log's terms, by what they are called here.
TERMS = {
    "weights": "weights_gib",
    "peak": "peak_gib",
    "non-torch": "non_torch_gib",
    "consumed": "consumed_gib",
    "graphs estimated": "graphs_estimated_gib",
    "graphs": "graphs_gib",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """One dry run against its log; None where the log or the dry run has no such number.

    Attributes:
        kv_difference_gib: foretold less logged, of one GPU.
        kv_ratio: the same as a part of what was logged.
        is_kv_near: within 2 % or 0.3 GiB.
        is_contained: whether the stated range contains the logged value.
        differences_gib: foretold less logged, by term.
    """

    is_verdict_right: bool
    kv_difference_gib: float | None = None
    kv_ratio: float | None = None
    is_kv_near: bool | None = None
    is_contained: bool | None = None
    weights_ratio: float | None = None
    is_weights_near: bool | None = None
    differences_gib: Mapping[str, float]


def judge(case: Case, result: Mapping[str, Any]) -> Judgement:
    """The judgement; the result is what `run.run_case` returned."""
    log = case.log
    right = (result["verdict"] == "starts") == log.fits
    foretold = as_logged(case, result)
    differences = {
        name: foretold[name] / GIB - theirs
        for name, field in TERMS.items()
        if (theirs := getattr(log, field)) is not None and name in foretold
    }
    weights_ratio = near = None
    if "weights" in differences and log.weights_gib:
        weights_ratio = differences["weights"] / log.weights_gib
        near = abs(differences["weights"]) <= WEIGHTS_RATIO * log.weights_gib + ROUNDING_GIB
    kv = _kv(case, result) if right else {}
    return Judgement(
        is_verdict_right=right,
        weights_ratio=weights_ratio,
        is_weights_near=near,
        differences_gib=differences,
        **kv,
    )


def as_logged(case: Case, result: Mapping[str, Any]) -> dict[str, int]:
    """The dry run's terms as that version's log would have them, bytes.

    Versions that log what is "consumed" count their estimate of the CUDA graphs to the peak.
    """
    found = {
        "weights": result.get("weights_bytes"),
        "peak": result.get("peak_bytes"),
        "non-torch": result.get("non_torch_bytes"),
        "graphs estimated": result.get("graphs_estimated_bytes"),
        "graphs": result.get("graphs_bytes"),
    }
    peak, asked, cache = (result.get(f"{name}_bytes") for name in ("peak", "requested", "kv"))
    if case.log.consumed_gib is not None and None not in (peak, asked, cache):
        peak += result.get("graphs_estimated_bytes") or 0
        found |= {"peak": peak, "consumed": asked - cache - peak}
    return {name: value for name, value in found.items() if value is not None}


def _kv(case: Case, result: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens where they are logged, as they are printed whole; else GiB."""
    log = case.log
    if log.kv_tokens is not None and result.get("kv_tokens"):
        token_gib = result["kv_bytes"] / result["kv_tokens"] / GIB
        ratio = result["kv_tokens"] / log.kv_tokens - 1
        difference = (result["kv_tokens"] - log.kv_tokens) * token_gib
        low, high = result["kv_tokens_low"], result["kv_tokens_high"]
        contained = low <= log.kv_tokens <= high
    elif log.kv_gib is not None and result.get("kv_bytes") is not None:
        difference = result["kv_bytes"] / GIB - log.kv_gib
        ratio = difference / abs(log.kv_gib)
        low, high = result["kv_low_bytes"] / GIB, result["kv_high_bytes"] / GIB
        contained = low - ROUNDING_GIB <= log.kv_gib <= high + ROUNDING_GIB
    else:
        return {}
    return {
        "kv_difference_gib": difference,
        "kv_ratio": ratio,
        "is_kv_near": abs(ratio) <= KV_RATIO or abs(difference) <= KV_GIB,
        "is_contained": contained,
    }
