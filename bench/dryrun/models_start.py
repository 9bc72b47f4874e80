"""Which models and modes start in a dry run: each case once, what came of it into a file.

    python -m bench.dryrun.models_start [--save] [--only PATTERN] [--again PATTERN] [--limit-s 300]

Resumable: a case that is in the file, with the same vLLM and the same memacct, is not run again
unless --again matches it. docs/dryrun-models.md is written from the file (models_page.py).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import memacct

from .models_cases import CASES
from .models_cut import write_model
from .models_results import RESULTS, read_results

if TYPE_CHECKING:
    from memacct.dry_run.result import DryRun

    from .models_cases import Case

# Of an error: long enough to be found again, short enough for a table.
ERROR_CHARS = 300


def command(case: Case, folder: Path) -> list[str]:
    """The command of a case, with its models written below `folder`."""
    model = write_model(folder / case.model, case.model, case.layers_count)
    options = list(case.options)
    for name, layers in case.drafts:
        draft = write_model(folder / "drafts" / name, name, layers)
        options = [option.replace("{" + name + "}", str(draft)) for option in options]
    variables = [f"{name}={value}" for name, value in case.environ]
    return [*variables, "vllm", "serve", str(model), *options]


def told(answer: DryRun) -> dict[str, Any]:
    """What the table needs of an answer."""
    first = answer.ranks[0] if answer.ranks else None
    refusal = answer.refusal
    return {
        "verdict": answer.verdict,
        "weights_bytes": first.weights.bytes if first and first.weights else None,
        "activation_bytes": first.activation_peak.bytes
        if first and first.activation_peak
        else None,
        "kv_tokens": answer.kv_tokens.value if answer.kv_tokens else None,
        "host_bytes": answer.host.held.bytes if answer.host else None,
        "ranks_count": len(answer.ranks),
        "refusal": refusal.message[:ERROR_CHARS] if refusal else None,
        "versions": dict(answer.versions),
    }


def start(case: Case, python: str, limit_s: float) -> dict[str, Any]:
    """Runs one case; an error of the engine is what came of it."""
    begun_s = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="memacct-models-") as folder:
        try:
            found = told(
                memacct.dryrun(
                    command(case, Path(folder)),
                    gpu=case.gpu,
                    count=case.count,
                    python=python,
                    limit_s=limit_s,
                    cache=False,
                )
            )
        except memacct.MemacctError as error:
            text = re.sub(rf"{tempfile.gettempdir()}/\S+/", "", str(error))  # differs by run
            found = {"verdict": "error", "error": text[:ERROR_CHARS]}
    return {**found, "took_s": round(time.monotonic() - begun_s, 1)}


def save(key: str, found: dict[str, Any]) -> None:
    """Puts one result into the file, in the order of the cases; another run may have added some."""
    results = {**read_results(), key: found}
    ordered = {case.key: results[case.key] for case in CASES if case.key in results}
    RESULTS.write_text(json.dumps(ordered, indent=1) + "\n")


def main() -> None:
    """Runs what is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help=f"into {RESULTS.name}")
    parser.add_argument("--only", default="", help="cases whose group, title or key match")
    parser.add_argument("--again", default=None, help="of those in the file, which to repeat")
    parser.add_argument("--limit-s", type=float, default=300.0)
    chosen = parser.parse_args()
    python = os.environ.get("MEMACCT_ENGINE_PYTHON", ".venv-gpu/bin/python")
    results = read_results()
    for case in CASES:
        named = f"{case.group}|{case.title}|{case.key}"
        if not re.search(chosen.only, named):
            continue
        if case.key in results and not (chosen.again and re.search(chosen.again, named)):
            continue
        found = start(case, python, chosen.limit_s)
        sys.stdout.write(f"{case.key}: {json.dumps(found)}\n")
        sys.stdout.flush()
        if chosen.save:
            save(case.key, found)


if __name__ == "__main__":
    main()
