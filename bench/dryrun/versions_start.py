"""Which kinds of models and modes start in other versions of vLLM: each installed, tried, removed.

    python -m bench.dryrun.versions_start --versions "0.32.0 0.29.0"

Resumable: a version that is in bench/results/dryrun-versions.json is tried again only if it is
named. Exit status 1: something did not start; 2: a version could not be installed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.engine.version_matrix.environment import Environment, InstallError, make
from bench.engine.version_matrix.versions import Target

import memacct

from .environments import complete
from .models_cut import write_model

RESULTS = Path(__file__).parents[1] / "results" / "dryrun-versions.json"
VERSIONS = "0.32.0 0.29.0 0.26.0 0.25.1 0.21.0 0.18.1 0.17.1 0.16.0 0.14.1 0.13.0 0.11.2"
STARTED_S = time.monotonic()
NGRAM = '{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":4}'
# Model, its layers, options, GPUs, card.
KINDS = (
    ("Llama-3.1-8B-Instruct", 4, "", 1, "h100"),
    ("Llama-3.1-8B-Instruct", 4, "--tensor-parallel-size 2", 2, "h100"),
    ("Llama-3.1-8B-Instruct", 2, "--pipeline-parallel-size 2 --enforce-eager", 2, "a100-80"),
    ("Qwen3-30B-A3B", 2, "--enforce-eager", 1, "h100"),
    ("gemma-3-4b-it", 6, "--enforce-eager", 1, "a100-80"),
    ("Qwen2.5-7B-Instruct-AWQ", 2, "--enforce-eager", 1, "l4"),
    ("DeepSeek-V2-Lite-Chat", 2, "--enforce-eager", 1, "h100"),
    ("Qwen2.5-VL-7B-Instruct", 2, "--enforce-eager", 1, "l40s"),
    ("Qwen3-8B-FP8", 2, "--enforce-eager", 1, "h100"),
    ("Qwen3-8B", 2, "", 1, "b200"),
    ("Llama-3.1-8B-Instruct", 4, f"--speculative-config {NGRAM} --enforce-eager", 1, "h100"),
    ("Llama-3.1-8B-Instruct", 2, "--data-parallel-size 2 --enforce-eager", 2, "h100"),
    ("Llama-3.1-8B-Instruct", 2, "--enable-lora --enforce-eager", 1, "h100"),
)


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.monotonic() - STARTED_S:6.0f} s  {text}", flush=True)


def start(python: Path, kind: tuple[str, int, str, int, str], folder: Path) -> dict[str, Any]:
    """One dry run; an error is what came of it."""
    name, layers_count, options, count, gpu = kind
    model = write_model(folder / f"{name}-{layers_count}", name, layers_count)
    command = ["vllm", "serve", str(model), *options.split()]
    try:
        run = memacct.dryrun(command, gpu=gpu, count=count, python=python, cache=False)
    except memacct.MemacctError as error:
        return {"verdict": "error", "error": str(error)}
    rank = run.ranks[0]
    return {
        "verdict": run.verdict,
        "weights_gib": rank.weights and round(rank.weights.bytes / 2**30, 2),
        "activation_gib": rank.activation_peak and round(rank.activation_peak.bytes / 2**30, 2),
        "kv_tokens": run.kv_tokens and round(run.kv_tokens.value),
    }


def run_version(version: str, work: Path) -> dict[str, Any]:
    """All kinds in one version, by what they are called.

    Raises:
        InstallError: it could not be installed.
    """
    environment, found = Environment(folder=work / version), {}
    make(Target(version=version), environment, None, say)
    complete(Target(version=version), environment)
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            name, layers_count, options, count, gpu = kind
            key = " ".join(f"{name} {options} ({layers_count} layers, {count} x {gpu})".split())
            found[key] = start(environment.python, kind, Path(folder))
            say(f"{version}: {key}: {found[key]}")
    shutil.rmtree(environment.folder)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", default="", help=f"default those missing of {VERSIONS}")
    parser.add_argument("--work", type=Path, default=Path(".memacct/dryrun-versions"))
    chosen = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    versions = chosen.versions.split() or [v for v in VERSIONS.split() if v not in results]
    status = 0
    for version in versions:
        try:
            results[version] = run_version(version, chosen.work.absolute())
        except InstallError as error:
            say(f"{version}: {error}")
            status = 2
            continue
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        bad = any(each["verdict"] != "starts" for each in results[version].values())
        status = max(status, int(bad))
    return status


if __name__ == "__main__":
    sys.exit(main())
