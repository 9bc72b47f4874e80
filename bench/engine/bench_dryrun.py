"""How long a dry run takes, and how much of the host's memory: cold, again, from the cache.

    python -m bench.engine.bench_dryrun [--model NAME] [--gpu GPU] [--whole] [--json FILE]

NAME is one of bench/dryrun/models. Cold is a start with nothing cached (Python's own .pyc and the
kernel's page cache apart); again is another with the kernels of the first; with --whole, also one
that leaves nothing out (MEMACCT_DRYRUN_QUICK=0), whose answer must be the same. Exit status 1: it
is another, or a budget is passed. Budgets count for an idle machine with two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.dryrun.models_cut import write_model

import memacct
from memacct._units import GIB, MIB
from memacct.dry_run.answers import Answers
from memacct.dry_run.cache import Cache
from memacct.dry_run.dryrun import make_request
from memacct.dry_run.machine import machine
from memacct.dry_run.start import run
from memacct.sim._build import build_runtime

if TYPE_CHECKING:
    from memacct.dry_run.result import DryRun

COLD_S = 40.0
CACHED_S = 3.0
HOST_BYTES = 2 * GIB


def children_cpu_s() -> float:
    """CPU time of the processes that have ended below this one."""
    times = resource.getrusage(resource.RUSAGE_CHILDREN)
    return times.ru_utime + times.ru_stime


def measured(command: str, gpu: str) -> tuple[DryRun, dict[str, Any]]:
    """A dry run by an engine, with what it took."""
    cpu_s, begin_s = children_cpu_s(), time.monotonic()
    answer = memacct.dryrun(command, gpu=gpu)
    return answer, {
        "wall_s": round(time.monotonic() - begin_s, 1),
        "cpu_s": round(children_cpu_s() - cpu_s, 1),
        "host_held_bytes": answer.host.held.bytes if answer.host else None,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024,
        "phases_s": {phase.name: round(phase.seconds, 1) for phase in answer.timeline},
        "load_average": round(os.getloadavg()[0], 1),
    }


def cached_s(command: str, gpu: str, folder: Path, answer: DryRun) -> float:
    """What the second of two equal questions takes, the first having had this answer."""
    request = make_request(command, machine(gpu))
    Answers(run=lambda _: answer, cache=Cache(folder=folder))(request)
    begin_s = time.monotonic()
    again = Answers(run=run, cache=Cache(folder=folder))(make_request(command, machine(gpu)))
    assert again.origin == "cache"
    return round(time.monotonic() - begin_s, 3)


def all_of(command: str, gpu: str, folder: Path, *, whole: bool) -> dict[str, Any]:
    """All measurements, with what they show."""
    built = build_runtime(python=os.environ.get("MEMACCT_ENGINE_PYTHON"))
    kept = folder / "xdg" / "memacct"
    kept.mkdir(parents=True)
    (kept / built.parent.name).symlink_to(built.parent)  # compiled once for an environment
    os.environ["XDG_CACHE_HOME"] = str(folder / "xdg")
    first, cold = measured(command, gpu)
    _, again = measured(command, gpu)
    found: dict[str, Any] = {"cold": cold, "again": again}
    found["kv_tokens"] = first.kv_tokens.value if first.kv_tokens else None
    found["cached_s"] = cached_s(command, gpu, folder / "answers", first)
    if whole:
        complete, found["whole"] = measured(f"MEMACCT_DRYRUN_QUICK=0 {command}", gpu)
        found["same"] = (complete.ranks, complete.kv_tokens) == (first.ranks, first.kv_tokens)
    return found


def over_budget(found: dict[str, Any]) -> list[str]:
    """What was not as it should be, in words."""
    cold = found["cold"]
    wrong = [] if found.get("same", True) else ["the whole start has another answer"]
    if cold["wall_s"] > COLD_S:
        wrong.append(f"cold {cold['wall_s']} s, over {COLD_S:.0f} s")
    if found["cached_s"] > CACHED_S:
        wrong.append(f"cached {found['cached_s']} s, over {CACHED_S:.0f} s")
    if (cold["host_held_bytes"] or 0) > HOST_BYTES:
        wrong.append(f"{cold['host_held_bytes'] / MIB:.0f} MiB of the host's memory")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="Llama-3.1-8B-Instruct")
    parser.add_argument("--gpu", default="h100")
    parser.add_argument("--options", default="", help="more of vllm serve")
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = write_model(Path(name) / chosen.model, chosen.model)
        command = f"vllm serve {model} {chosen.options}"
        found = all_of(command, chosen.gpu, Path(name), whole=chosen.whole)
    text = json.dumps({"model": chosen.model, "gpu": chosen.gpu, **found}, indent=1)
    print(text)
    if chosen.json:
        chosen.json.write_text(text + "\n")
    wrong = over_budget(found)
    print(*wrong, sep="\n")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
