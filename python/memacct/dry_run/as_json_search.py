"""Fits, comparisons and the plan beside a run as plain data, for `--json`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from memacct.dry_run.as_json import SCHEMA, to_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from memacct.dry_run.compare import Compared
    from memacct.dry_run.fit import Fit
    from memacct.dry_run.result import DryRun
    from memacct.dry_run.versus_plan import VersusPlan


def fit_to_json(fit: Fit) -> dict[str, Any]:
    """A fit with each of its tries; "run" is the whole dry run of the answer."""
    return {
        "schema_version": SCHEMA,
        "kind": "dryrun fit",
        "goal": fit.goal.name,
        "value": fit.value,
        "starts_count": fit.starts_count,
        "beyond": fit.beyond,
        "rising": fit.rising,
        "run": _run(fit.run),
        "tries": [
            {
                "value": each.value,
                "verdict": None if each.run is None else each.run.verdict,
                "origin": None if each.run is None else each.run.origin,
                "took_s": None if each.run is None else each.run.took_s,
                "why_not": each.why_not,
            }
            for each in fit.tries
        ],
    }


def compare_to_json(compared: Sequence[Compared]) -> dict[str, Any]:
    """A comparison: the whole dry run of each card."""
    return {
        "schema_version": SCHEMA,
        "kind": "dryrun comparison",
        "cards": [
            {"gpu": each.gpu, "why_not": each.why_not, "run": _run(each.run)} for each in compared
        ],
    }


def versus_to_json(versus: VersusPlan) -> dict[str, Any]:
    """The plan beside a run."""
    terms = [{**asdict(each), "agrees": each.agrees} for each in versus.terms]
    return {**asdict(versus), "terms": terms, "agrees": versus.agrees}


def _run(run: DryRun | None) -> dict[str, Any] | None:
    return None if run is None else to_json(run)
